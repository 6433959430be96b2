#include "gbnf.h"

#include "gbnf_rules.h"

#include <algorithm>
#include <map>

namespace kollama {
namespace {

constexpr size_t MAX_TEXT     = 1 << 20;
constexpr size_t MAX_ELEMENTS = 1 << 20; // of all rules; repetitions copy theirs
constexpr size_t MAX_REPEAT   = 2000;    // llama.cpp's
constexpr int    MAX_NESTING  = 100;     // of parentheses

using rule = std::vector<gbnf_element>;

class parser {
  public:
    explicit parser(const std::string & text) : text_(text) {}

    gbnf run(const std::string & root);

  private:
    [[noreturn]] void fail(const std::string & what) const;
    [[noreturn]] void expect(const char * what) const;

    char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
    void space(bool newlines);
    std::string name();
    uint64_t    number();
    void        hex(int digits);
    void        character();
    void        token();
    void        literal();
    void        char_class();

    int32_t rule_id(const std::string & name);
    int32_t new_rule(const std::string & name);
    void    define(int32_t id, rule elements);
    void    grow(rule & to, const rule & what);

    void parse_rule();
    void alternatives(const std::string & name, int32_t id, int nesting);
    void sequence(const std::string & name, rule & out, int nesting);
    void repetition(const std::string & name, rule & out, bool nested);
    void repeat(const std::string & name, rule & out, uint64_t least, uint64_t most);

    const std::string & text_;
    size_t              at_ = 0;
    gbnf                found_;

    std::map<std::string, int32_t> ids_;
    gbnf_rules                     all_;
    size_t                         n_elements_ = 0;

    // Of the item that a repetition would repeat.
    size_t   item_   = 0;
    uint64_t copies_ = 1;
};

void parser::fail(const std::string & what) const {
    const size_t line = 1 + static_cast<size_t>(std::count(text_.begin(), text_.begin() + std::min(at_, text_.size()), '\n'));
    throw failure(KOLLAMA_ERROR_ARGUMENT, format("the grammar, line %zu: ", line) + what);
}

void parser::expect(const char * what) const {
    const size_t end = std::min(text_.find('\n', std::min(at_, text_.size())), text_.size());
    size_t       cut = std::min(end, at_ + 24);
    while (cut < end && (static_cast<unsigned char>(text_[cut]) & 0xC0) == 0x80) {
        cut++; // no half character
    }
    fail(std::string("expected ") + what + (at_ < cut ? " at '" + text_.substr(at_, cut - at_) + "'" : " before the line's end"));
}

bool is_word(char c) {
    return ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z') || c == '-' || ('0' <= c && c <= '9');
}

void parser::space(bool newlines) {
    for (;; at_++) {
        if (peek() == '#') {
            while (at_ < text_.size() && peek() != '\r' && peek() != '\n') {
                at_++;
            }
        }
        const char c = peek();
        if (!(c == ' ' || c == '\t' || (newlines && (c == '\r' || c == '\n')))) {
            return;
        }
    }
}

std::string parser::name() {
    const size_t begin = at_;
    while (is_word(peek())) {
        at_++;
    }
    if (at_ == begin) {
        expect("a rule's name (letters, digits and -)");
    }
    return text_.substr(begin, at_ - begin);
}

uint64_t parser::number() {
    uint64_t value = 0;
    if (peek() < '0' || peek() > '9') {
        expect("a number");
    }
    for (; peek() >= '0' && peek() <= '9'; at_++) {
        value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(peek() - '0'), UINT32_MAX);
    }
    return value;
}

void parser::hex(int digits) {
    for (int i = 0; i < digits; i++, at_++) {
        const char c = peek();
        if (!(('0' <= c && c <= '9') || ('a' <= c && c <= 'f') || ('A' <= c && c <= 'F'))) {
            expect("a hexadecimal digit");
        }
    }
}

void parser::character() {
    if (at_ >= text_.size()) {
        fail("it ends inside a literal or a character class");
    }
    if (peek() != '\\') {
        for (at_++; (static_cast<unsigned char>(peek()) & 0xC0) == 0x80; at_++) {}
        return;
    }
    at_ += 2;
    switch (peek(static_cast<size_t>(-1))) {
        case 'x': return hex(2);
        case 'u': return hex(4);
        case 'U': return hex(8);
        case 't': case 'r': case 'n': case '\\': case '"': case '[': case ']': case '-': return;
        default:
            at_ -= 2;
            expect("one of the escapes \\x \\u \\U \\t \\r \\n \\\\ \\\" \\[ \\] \\-");
    }
}

void parser::token() {
    const size_t begin = at_++;
    if (peek() == '[') {
        at_++;
        const uint64_t id = number();
        if (id > INT32_MAX) {
            fail("a token's id is too large");
        }
        found_.ids.push_back(static_cast<int32_t>(id));
        if (peek() != ']' || peek(1) != '>') {
            expect("]>");
        }
        at_ += 2;
        return;
    }
    const size_t end = text_.find('>', at_);
    if (end == std::string::npos) {
        expect("the > of a token");
    }
    at_ = end + 1;
    found_.tokens.push_back(text_.substr(begin, at_ - begin));
}

void parser::literal() {
    at_++;
    size_t n = 0;
    for (; peek() != '"'; n++) {
        character();
    }
    at_++;
    n_elements_ += n;
}

void parser::char_class() {
    at_ += peek(1) == '^' ? 2 : 1;
    while (peek() != ']') {
        character();
        n_elements_++;
        if (peek() == '-' && peek(1) != ']') {
            at_++;
            character();
            n_elements_++;
        }
    }
    at_++;
}

int32_t parser::rule_id(const std::string & name) {
    const auto [found, is_new] = ids_.emplace(name, static_cast<int32_t>(all_.elements.size()));
    return is_new ? new_rule(name) : found->second;
}

int32_t parser::new_rule(const std::string & name) {
    all_.names.push_back(name);
    all_.elements.emplace_back();
    all_.defined.push_back(false);
    return static_cast<int32_t>(all_.elements.size()) - 1;
}

void parser::define(int32_t id, rule elements) {
    all_.elements[id] = std::move(elements);
    all_.defined[id]  = true;
}

void parser::grow(rule & to, const rule & what) {
    n_elements_ += what.size();
    if (n_elements_ > MAX_ELEMENTS) {
        fail("its repetitions make more rules than can be handled: use smaller numbers");
    }
    to.insert(to.end(), what.begin(), what.end());
}

void parser::alternatives(const std::string & name, int32_t id, int nesting) {
    rule out;
    sequence(name, out, nesting);
    while (peek() == '|') {
        out.push_back(ALTERNATIVE);
        at_++;
        space(true);
        sequence(name, out, nesting);
    }
    define(id, std::move(out));
}

void parser::sequence(const std::string & name, rule & out, int nesting) {
    const bool nested = nesting > 0;
    item_   = out.size();
    copies_ = 1;
    while (true) {
        const char   c     = peek();
        const size_t begin = out.size();
        const size_t n     = n_elements_;
        uint64_t     rules = 1;
        if (c == '"' || c == '[') {
            c == '"' ? literal() : char_class();
            const rule item(n_elements_ - n, TERMINAL); // as many as llama.cpp makes of it
            n_elements_ = n;
            grow(out, item);
        } else if (c == '<' || (c == '!' && peek(1) == '<')) {
            at_ += c == '!' ? 1 : 0;
            token();
            grow(out, { TERMINAL });
        } else if (c == '.') {
            at_++;
            grow(out, { TERMINAL });
        } else if (is_word(c)) {
            const int32_t id = rule_id(this->name());
            grow(out, { id });
        } else if (c == '(') {
            if (nesting >= MAX_NESTING) {
                fail(format("more than %d parentheses are nested", MAX_NESTING));
            }
            at_++;
            space(true);
            const size_t  n_before = all_.elements.size();
            const int32_t id       = new_rule(name);
            alternatives(name, id, nesting + 1);
            rules = std::max<uint64_t>(1, all_.elements.size() - n_before);
            grow(out, { id });
            if (peek() != ')') {
                expect(")");
            }
            at_++;
        } else if (c == '*' || c == '+' || c == '?' || c == '{') {
            repetition(name, out, nested);
            space(nested);
            continue;
        } else if (c == '!') {
            expect("a token after !");
        } else {
            return;
        }
        item_   = begin;
        copies_ = rules;
        space(nested);
    }
}

void parser::repetition(const std::string & name, rule & out, bool nested) {
    if (item_ == out.size()) {
        expect("something to repeat before");
    }
    const char c = peek();
    at_++;
    if (c != '{') {
        return repeat(name, out, c == '+' ? 1 : 0, c == '?' ? 1 : UINT64_MAX);
    }
    space(nested);
    const uint64_t least = number();
    uint64_t       most  = least;
    space(nested);
    if (peek() == ',') {
        at_++;
        space(nested);
        most = peek() == '}' ? UINT64_MAX : number();
        space(nested);
    }
    if (peek() != '}') {
        expect("} or ,");
    }
    at_++;
    if (least > MAX_REPEAT) {
        fail(format("more than %zu repetitions", MAX_REPEAT));
    }
    if (most < least) {
        fail("a repetition's upper limit is below its lower one");
    }
    repeat(name, out, least, most > MAX_REPEAT ? UINT64_MAX : most);
}

// S{m,n} becomes m times S, then n - m rules S'(i) ::= S S'(i-1) | ; without n one S' ::= S S' | .
void parser::repeat(const std::string & name, rule & out, uint64_t least, uint64_t most) {
    const bool     endless = most == UINT64_MAX;
    const uint64_t total   = !endless && most > 0 ? most : std::max<uint64_t>(1, least);
    if (copies_ * total > MAX_REPEAT) {
        fail("repetitions inside of repetitions come to too many rules: use smaller numbers");
    }
    const rule item(out.begin() + static_cast<std::ptrdiff_t>(item_), out.end());
    if (least == 0) {
        out.resize(item_);
    }
    for (uint64_t i = 1; i < least; i++) {
        grow(out, item);
    }
    const uint64_t n_optional = endless ? 1 : most - least;
    int32_t        last       = 0;
    for (uint64_t i = 0; i < n_optional; i++) {
        rule          optional;
        const int32_t id = new_rule(name);
        grow(optional, item);
        if (i > 0 || endless) {
            grow(optional, { endless ? id : last });
        }
        optional.push_back(ALTERNATIVE);
        define(id, std::move(optional));
        last = id;
    }
    if (n_optional > 0) {
        grow(out, { last });
    }
    copies_ *= total;
}

void parser::parse_rule() {
    const std::string name = this->name();
    const int32_t     id   = rule_id(name);
    space(false);
    if (text_.compare(at_, 3, "::=") != 0) {
        expect("::=");
    }
    at_ += 3;
    space(true);
    alternatives(name, id, 0);
    if (peek() == '\r') {
        at_ += peek(1) == '\n' ? 2 : 1;
    } else if (peek() == '\n') {
        at_++;
    } else if (at_ < text_.size()) {
        expect("an element of a rule, | or a new line");
    }
    space(true);
}

gbnf parser::run(const std::string & root) {
    if (text_.size() > MAX_TEXT) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("the grammar has %zu bytes; %zu are the most", text_.size(), MAX_TEXT));
    }
    if (text_.find('\0') != std::string::npos) {
        at_ = text_.find('\0');
        fail("there is a NUL character");
    }
    space(true);
    while (at_ < text_.size()) {
        parse_rule();
    }
    if (ids_.find(root) == ids_.end()) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "the grammar has no rule '" + root + "' to begin with");
    }
    check_rules(all_);
    return std::move(found_);
}

} // namespace

gbnf check_grammar(const std::string & text, const std::string & root) {
    return parser(text).run(root);
}

} // namespace kollama
