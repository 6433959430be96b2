// A libFuzzer target over the tokenizer: encode, decode, and the readers of its files. The input's
// first byte chooses. See scripts/fuzz.sh.
//
// Beside what the sanitizers find, it checks what must hold for every text: decoding what was encoded
// gives the text back, offsets lie in the text and rise, one id at a time gives the same text as all
// at once, and the long way (with offsets, without the cache) gives the same ids as the short one.

#include "byte_source.h"
#include "tokenizer/chars.h"
#include "tokenizer/pipelines.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf16.h"

#include <cstring>

using namespace kollama;

namespace {

#define CHECK(holds)                                                       \
    if (!(holds)) {                                                        \
        std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #holds);   \
        std::abort();                                                      \
    }

const char * const WORDS[] = { "안녕", "하세요", "▁안녕", "▁오늘은", "▁날", "씨가", "▁▁", "▁▁▁▁", "ab", "abc", "bc", "▁the", ">▁<",
                               "가나", "나다", "다라", "가나다", "..", "\n\n", "é,", "한글" };

// A vocabulary with every byte, the parts of WORDS, and merges that form them from the left, and some
// from the right.
struct material {
    std::vector<std::string>                         pieces{ "<unk>", "<s>", "</s>" };
    std::vector<std::pair<std::string, std::string>> merges;

    bool add(const std::string & piece) {
        for (const std::string & known : pieces) {
            if (known == piece) {
                return false;
            }
        }
        pieces.push_back(piece);
        return true;
    }

    material() {
        for (int byte = 0; byte < 256; byte++) {
            add(format("<0x%02X>", byte));
        }
        for (const std::string word : WORDS) {
            for (size_t at = 0, n; at < word.size(); at += n) {
                n = utf8_length(static_cast<uint8_t>(word[at]));
                add(word.substr(at, n));
                if (at > 0 && add(word.substr(0, at + n))) {
                    merges.emplace_back(word.substr(0, at), word.substr(at, n));
                }
            }
        }
    }
};

std::string quoted(const std::string & text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        c == '\n' ? out += "\\n" : out += c;
    }
    return out + "\"";
}

std::string json_of(const material & from, const char * normalizer, const char * pre_tokenizer) {
    std::string out = "{\"added_tokens\":["
                      "{\"id\":0,\"content\":\"<unk>\",\"special\":true,\"normalized\":false},"
                      "{\"id\":1,\"content\":\"<s>\",\"special\":true,\"normalized\":false,\"lstrip\":true},"
                      "{\"id\":2,\"content\":\"</s>\",\"special\":true,\"normalized\":false,\"rstrip\":true},";
    out += format("{\"id\":%zu,\"content\":\"한글 낱말\",\"special\":false,\"normalized\":true,\"single_word\":true}],", from.pieces.size());
    out += std::string("\"normalizer\":") + normalizer + ",\"pre_tokenizer\":" + pre_tokenizer + ",";
    out += "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"▁\"},\"content\":\" \"},"
           "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
           "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{";
    for (size_t i = 0; i < from.pieces.size(); i++) {
        out += (i ? "," : "") + quoted(from.pieces[i]) + ":" + std::to_string(i);
    }
    out += "},\"merges\":[";
    for (size_t i = 0; i < from.merges.size(); i++) {
        out += (i ? ",[" : "[") + quoted(from.merges[i].first) + "," + quoted(from.merges[i].second) + "]";
    }
    return out + "]}}";
}

std::string legacy_of(const material & from) {
    std::string out = "tjgg";
    auto number = [&](uint32_t n) { out.append(reinterpret_cast<const char *>(&n), 4); };
    number(3);
    number(static_cast<uint32_t>(from.pieces.size()));
    for (int i = 0; i < 6; i++) {
        number(1);
    }
    for (size_t i = 0; i < from.pieces.size(); i++) {
        const int         byte = vocabulary::byte_of(from.pieces[i]);
        const std::string text = i < 3 ? "" : byte >= 0 ? std::string(1, static_cast<char>(byte)) : from.pieces[i];
        const float       score = -static_cast<float>(i);
        number(static_cast<uint32_t>(text.size()));
        out += text;
        out.append(reinterpret_cast<const char *>(&score), 4);
    }
    return out;
}

const std::vector<std::unique_ptr<tokenizer>> & tokenizers() {
    static std::vector<std::unique_ptr<tokenizer>> made;
    if (made.empty()) {
        const material from;
        const char *   llama = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"},"
                               "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]}";
        const char *   split = "{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"first\",\"split\":true}";
        for (const auto & rules : { std::make_pair(llama, "null"), std::make_pair("null", split) }) {
            made.push_back(std::make_unique<tokenizer>());
            read_json(json_of(from, rules.first, rules.second), *made.back());
        }
        made.push_back(std::make_unique<tokenizer>());
        const std::string legacy = legacy_of(from);
        read_legacy(*open_memory(legacy.data(), legacy.size()), *made.back());
    }
    return made;
}

std::string text_of(const tokenizer & t, const std::vector<int32_t> & ids) {
    const text_buffer units = decode_utf16(t.vocab, t.texts(), t.text, ids.data(), ids.size(), false);
    std::string       out;
    for (size_t i = units.first; i < units.last; i += 2) {
        char16_t unit, low = 0;
        std::memcpy(&unit, units.memory + i, 2);
        uint32_t cp = unit;
        if (unit >= 0xD800 && unit < 0xDC00) {
            i += 2;
            CHECK(i < units.last);
            std::memcpy(&low, units.memory + i, 2);
            cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00u);
        }
        append_utf8(cp, out);
    }
    std::free(units.memory);
    return out;
}

std::string text_one_by_one(const tokenizer & t, const std::vector<int32_t> & ids) {
    utf8_stream stream(t.text.replaces_each_byte);
    std::string out;
    for (int32_t id : ids) {
        stream.push(t.bytes(id), out);
    }
    stream.flush(out);
    return t.text.start == text_rules::strip::one_space && !out.empty() && out[0] == ' ' ? out.substr(1) : out;
}

// Any bytes as UTF-16, and back where they are.
void convert(std::string_view units) {
    const size_t      n_units = units.size() / 2;
    std::vector<char> bytes(utf8_room(n_units));
    const size_t      size = utf16_to_utf8(units.data(), n_units, bytes.data());
    if (size == NOT_UNICODE) {
        return;
    }
    const std::string_view text(bytes.data(), size);
    CHECK(valid_utf8(text) == size);
    std::vector<char16_t> back(size);
    CHECK(utf8_to_utf16(text, back.data()) == n_units && (n_units == 0 || std::memcmp(back.data(), units.data(), n_units * 2) == 0));
}

void encode(const tokenizer & t, std::string_view text, bool parse_special) {
    token_buffer          plain, located(true);
    const bool            valid = valid_utf8(text) == text.size();
    std::vector<char16_t> units(text.size());
    const size_t          n_units = utf8_to_utf16(text, units.data());
    CHECK(valid == (n_units != NOT_UNICODE));
    if (valid) {
        std::vector<char> bytes(utf8_room(n_units));
        const size_t      size = utf16_to_utf8(reinterpret_cast<const char *>(units.data()), n_units, bytes.data());
        CHECK(std::string_view(bytes.data(), size) == text);
    }
    convert(text);
    try {
        t.encode(text, false, parse_special, plain);
        CHECK(valid);
        t.encode(text, false, parse_special, located);
    } catch (const failure & e) {
        CHECK(!valid && e.status == KOLLAMA_ERROR_TOKEN);
        return;
    }
    const std::vector<int32_t> ids(plain.data(), plain.data() + plain.size());
    CHECK(ids == std::vector<int32_t>(located.data(), located.data() + located.size()));
    CHECK(located.spans.size() == ids.size());
    for (size_t i = 0; i < ids.size(); i++) {
        CHECK(located.spans[i].first <= located.spans[i].last && located.spans[i].last <= text.size());
        CHECK(i == 0 || located.spans[i - 1].first <= located.spans[i].first);
    }
    const std::string back = text_of(t, ids);
    CHECK(back == text_one_by_one(t, ids));
    if (!parse_special && t.text.start == text_rules::strip::one_space && &t != tokenizers()[1].get() &&
        text.find(MARK) == std::string_view::npos && text.find("한글 낱말") == std::string_view::npos) {
        CHECK(back == text);
    }
}

void decode(const tokenizer & t, const uint8_t * data, size_t size) {
    std::vector<int32_t> ids(size / 2);
    bool                 valid = true;
    for (size_t i = 0; i < ids.size(); i++) {
        ids[i] = static_cast<int16_t>(data[2 * i] | data[2 * i + 1] << 8);
        if (data[0] & 1) { // mostly ids that are there
            ids[i] = static_cast<int32_t>(static_cast<uint32_t>(ids[i]) % t.vocab.size());
        }
        valid &= ids[i] >= 0 && static_cast<size_t>(ids[i]) < t.vocab.size();
    }
    try {
        const std::string all = text_of(t, ids);
        CHECK(valid && all == text_one_by_one(t, ids));
        std::free(decode_bytes(t.vocab, t.texts(), t.text, ids.data(), ids.size(), true).memory);
    } catch (const failure & e) {
        CHECK(!valid && e.status == KOLLAMA_ERROR_TOKEN);
    }
}

template <class F> void read(F && how) {
    tokenizer t;
    try {
        how(t);
    } catch (const failure & e) {
        CHECK(e.status == KOLLAMA_ERROR_FORMAT && e.what()[0] != '\0');
        return;
    }
    t.texts();
    for (const char * text : { "안녕하세요, 오늘은  날씨가 좋네요.", "<s>가나다라 abc</s> ", "\n\n▁\x7f😀" }) {
        token_buffer out, located(true);
        t.encode(text, false, true, out);
        t.encode(text, false, false, located);
        std::free(decode_utf16(t.vocab, t.texts(), t.text, out.data(), out.size(), false).memory);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    if (size < 2) {
        return 0;
    }
    const auto &           all  = tokenizers();
    const unsigned         mode = data[0] % 8;
    const std::string_view rest(reinterpret_cast<const char *>(data) + 2, size - 2);
    switch (mode) {
        case 0: read([&](tokenizer & t) { read_json(rest, t); }); break;
        case 1: read([&](tokenizer & t) { read_legacy(*open_memory(rest.data(), rest.size()), t); }); break;
        case 2: decode(*all[data[1] % all.size()], data + 2, size - 2); break;
        default: encode(*all[data[1] % all.size()], rest, data[1] & 128); break;
    }
    return 0;
}

// With an argument: writes first inputs to that folder, so that the fuzzer need not find JSON itself.
extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    if (const char * folder = std::getenv("KOLLAMA_FUZZ_SEEDS")) {
        const material from;
        auto           write = [&](const char * name, const std::string & text) {
            std::FILE * file = std::fopen((std::string(folder) + "/" + name).c_str(), "wb");
            CHECK(file);
            std::fwrite(text.data(), 1, text.size(), file);
            std::fclose(file);
        };
        material small;
        small.pieces = { "<unk>", "<s>", "</s>", "<0xEA>", "▁", "가", "나", "가나", "▁가나" };
        small.merges = { { "가", "나" }, { "▁", "가나" } };
        const std::string zero(2, '\0');
        write("json", zero + json_of(small, "{\"type\":\"Prepend\",\"prepend\":\"▁\"}", "null"));
        write("json-metaspace", zero + json_of(small, "null", "{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"split\":false}"));
        write("legacy", std::string("\1\0", 2) + legacy_of(small));
        write("text", std::string("\7\0", 2) + "안녕하세요, 오늘은  날씨가 좋네요.\n\n<s> abc </s>가나다 >▁< 한글 낱말 é,..");
        write("text-specials", std::string("\7\x80", 2) + "<s><s> 가나 </s> </s>  한글 낱말");
        std::exit(0);
    }
    return 0;
}
