#include "tokenizer/json.h"

#include "tokenizer/chars.h"

#include <cstring>

namespace kollama {
namespace {

constexpr size_t MAX_DEPTH = 64; // of objects and arrays; a tokenizer.json has about 8

const char * name_of(json_reader::kind kind) {
    switch (kind) {
        case json_reader::kind::object:  return "an object";
        case json_reader::kind::array:   return "an array";
        case json_reader::kind::string:  return "a string";
        case json_reader::kind::number:  return "a number";
        case json_reader::kind::boolean: return "true or false";
        default:                         return "null";
    }
}

} // namespace

json_reader::json_reader(std::string_view text) : text_(text) {
    if (text.substr(0, 3) == "\xEF\xBB\xBF") { // a byte order mark, as some editors leave it
        at_ = 3;
    }
    const size_t valid = valid_utf8(text);
    if (valid != text.size()) {
        at_ = valid;
        fail("is not UTF-8");
    }
}

void json_reader::fail(const std::string & reason) const {
    throw failure(KOLLAMA_ERROR_FORMAT, format("byte %zu: %s", at_, reason.c_str()));
}

void json_reader::space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
        at_++;
    }
}

char json_reader::need() {
    space();
    if (at_ == text_.size()) {
        fail("the JSON text ends here, unfinished");
    }
    return text_[at_];
}

void json_reader::expect(char c) {
    if (need() != c) {
        fail(format("'%c' is expected here", c));
    }
    at_++;
}

json_reader::kind json_reader::peek() {
    switch (need()) {
        case '{': return kind::object;
        case '[': return kind::array;
        case '"': return kind::string;
        case 't': case 'f': return kind::boolean;
        case 'n': return kind::null;
        case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
            return kind::number;
        default: fail("no JSON value begins like this");
    }
}

void json_reader::open(char c) {
    const kind wanted = c == '{' ? kind::object : kind::array;
    if (peek() != wanted) {
        fail(format("%s is expected here, not %s", name_of(wanted), name_of(peek())));
    }
    if (begun_.size() == MAX_DEPTH) {
        fail("is nested too deeply");
    }
    at_++;
    begun_.push_back(false);
}

bool json_reader::next(char close) {
    if (need() == close) {
        at_++;
        begun_.pop_back();
        return false;
    }
    if (begun_.back()) {
        expect(',');
    }
    begun_.back() = true;
    return true;
}

void json_reader::begin_object() {
    open('{');
}

bool json_reader::next_key(std::string & key) {
    if (!next('}')) {
        return false;
    }
    key.clear();
    string(key);
    expect(':');
    return true;
}

void json_reader::begin_array() {
    open('[');
}

bool json_reader::next_item() {
    return next(']');
}

uint32_t json_reader::hex4() {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++, at_++) {
        const char c = at_ < text_.size() ? text_[at_] : '"';
        const int  digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) {
            fail("\\u needs four hexadecimal digits");
        }
        value = value * 16 + static_cast<uint32_t>(digit);
    }
    return value;
}

void json_reader::escape(std::string & out) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    at_++;
    switch (c) {
        case '"': case '\\': case '/': out += c; return;
        case 'b': out += '\b'; return;
        case 'f': out += '\f'; return;
        case 'n': out += '\n'; return;
        case 'r': out += '\r'; return;
        case 't': out += '\t'; return;
        case 'u': break;
        default: at_--; fail("an unknown escape in a string");
    }
    uint32_t cp = hex4();
    if (cp >= 0xD800 && cp < 0xDC00 && text_.substr(at_, 2) == "\\u") {
        at_ += 2;
        const uint32_t low = hex4();
        if (low < 0xDC00 || low > 0xDFFF) {
            fail("a lone surrogate in a string");
        }
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
    } else if (cp >= 0xD800 && cp < 0xE000) {
        fail("a lone surrogate in a string");
    }
    append_utf8(cp, out);
}

void json_reader::string(std::string & out) {
    if (peek() != kind::string) {
        fail(format("a string is expected here, not %s", name_of(peek())));
    }
    at_++;
    for (;;) {
        size_t end = at_;
        while (end < text_.size() && text_[end] != '"' && text_[end] != '\\' && static_cast<uint8_t>(text_[end]) >= 0x20) {
            end++;
        }
        out.append(text_.data() + at_, end - at_);
        at_ = end;
        if (at_ == text_.size()) {
            fail("the JSON text ends inside a string");
        }
        const char c = text_[at_++];
        if (c == '"') {
            return;
        }
        if (c != '\\') {
            at_--;
            fail("a control character in a string");
        }
        escape(out);
    }
}

std::string json_reader::number_text() {
    const size_t begun = at_;
    auto digits = [&] {
        const size_t start = at_;
        while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
            at_++;
        }
        if (at_ == start) {
            fail("a number is unfinished");
        }
    };
    auto at = [&](char c) { return at_ < text_.size() && text_[at_] == c; };
    at_ += at('-');
    if (at('0')) {
        at_++;
    } else {
        digits();
    }
    if (at('.')) {
        at_++;
        digits();
    }
    if (at('e') || at('E')) {
        at_++;
        at_ += at('+') || at('-');
        digits();
    }
    return std::string(text_.substr(begun, at_ - begun));
}

double json_reader::number() {
    if (peek() != kind::number) {
        fail(format("a number is expected here, not %s", name_of(peek())));
    }
    return std::strtod(number_text().c_str(), nullptr);
}

int64_t json_reader::integer(int64_t low, int64_t high) {
    if (peek() != kind::number) {
        fail(format("an integer is expected here, not %s", name_of(peek())));
    }
    const size_t start = at_;
    const std::string digits = number_text();
    const bool        whole = digits.find_first_of(".eE") == std::string::npos && digits.size() < 19;
    const int64_t     value = whole ? std::strtoll(digits.c_str(), nullptr, 10) : high;
    if (!whole || value < low || value > high) {
        at_ = start;
        fail(format("%s is not an integer from %lld to %lld", digits.c_str(), (long long) low, (long long) high));
    }
    return value;
}

void json_reader::word(const char * text) {
    if (text_.substr(at_, std::strlen(text)) != text) {
        fail("no JSON value begins like this");
    }
    at_ += std::strlen(text);
}

bool json_reader::boolean() {
    if (peek() != kind::boolean) {
        fail(format("true or false is expected here, not %s", name_of(peek())));
    }
    const bool value = text_[at_] == 't';
    word(value ? "true" : "false");
    return value;
}

bool json_reader::take_null() {
    if (peek() != kind::null) {
        return false;
    }
    word("null");
    return true;
}

void json_reader::skip() {
    std::string text;
    switch (peek()) {
        case kind::object:
            begin_object();
            while (next_key(text)) {
                skip();
            }
            return;
        case kind::array:
            begin_array();
            while (next_item()) {
                skip();
            }
            return;
        case kind::string:  string(text); return;
        case kind::number:  number_text(); return;
        case kind::boolean: boolean(); return;
        case kind::null:    take_null(); return;
    }
}

void json_reader::end() {
    space();
    if (at_ != text_.size()) {
        fail("more text follows the JSON value");
    }
}

} // namespace kollama
