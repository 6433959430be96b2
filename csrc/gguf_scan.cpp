#include "gguf_scan.h"

#include <algorithm>
#include <cstring>

namespace kollama {
namespace {

constexpr uint64_t MAX_KEY_BYTES = 65535; // the GGUF specification's limit
constexpr uint64_t MAX_NAME_BYTES = 64;   // ggml's GGML_MAX_NAME
constexpr uint64_t MAX_COUNT = 65536;     // of keys, and of tensors: each takes llama.cpp a kilobyte

std::string read_text(source_reader & in, uint64_t limit, const char * what) {
    const uint64_t length = in.number<uint64_t>(what);
    if (length > limit) {
        in.fail(in.offset() - 8, format("%s claims a length of %llu bytes", what, (unsigned long long) length));
    }
    in.need(length, what);
    std::string value(static_cast<size_t>(length), '\0');
    in.read(value.data(), value.size(), what);
    return value;
}

uint64_t scalar_size(uint32_t type) {
    switch (type) {
        case GGUF_TYPE_UINT8: case GGUF_TYPE_INT8: case GGUF_TYPE_BOOL:                            return 1;
        case GGUF_TYPE_UINT16: case GGUF_TYPE_INT16:                                               return 2;
        case GGUF_TYPE_UINT32: case GGUF_TYPE_INT32: case GGUF_TYPE_FLOAT32:                       return 4;
        case GGUF_TYPE_UINT64: case GGUF_TYPE_INT64: case GGUF_TYPE_FLOAT64:                       return 8;
        default:                                                                                   return 0;
    }
}

// With as many digits as it takes to read the same number back.
template <class T> std::string shortest(T value, int most) {
    std::string text;
    for (int digits = 6; digits <= most; digits++) {
        text = format("%.*g", digits, static_cast<double>(value));
        if (static_cast<T>(std::strtod(text.c_str(), nullptr)) == value) {
            break;
        }
    }
    return text;
}

std::string scalar(source_reader & in, uint32_t type) {
    switch (type) {
        case GGUF_TYPE_UINT8:   return std::to_string(in.number<uint8_t>("a value"));
        case GGUF_TYPE_INT8:    return std::to_string(in.number<int8_t>("a value"));
        case GGUF_TYPE_UINT16:  return std::to_string(in.number<uint16_t>("a value"));
        case GGUF_TYPE_INT16:   return std::to_string(in.number<int16_t>("a value"));
        case GGUF_TYPE_UINT32:  return std::to_string(in.number<uint32_t>("a value"));
        case GGUF_TYPE_INT32:   return std::to_string(in.number<int32_t>("a value"));
        case GGUF_TYPE_UINT64:  return std::to_string(in.number<uint64_t>("a value"));
        case GGUF_TYPE_INT64:   return std::to_string(in.number<int64_t>("a value"));
        case GGUF_TYPE_FLOAT32: return shortest(in.number<float>("a value"), 9);
        case GGUF_TYPE_FLOAT64: return shortest(in.number<double>("a value"), 17);
        default:                return in.number<uint8_t>("a value") ? "true" : "false";
    }
}

std::string array(source_reader & in, const std::string & key, kollama_gguf::entry & entry) {
    const uint32_t type  = in.number<uint32_t>("an array's type");
    const uint64_t count = in.number<uint64_t>("an array's length");
    entry.array_type     = type;
    entry.array_count    = count;
    entry.array_offset   = in.offset();
    if (type == GGUF_TYPE_STRING) {
        for (uint64_t i = 0; i < count; i++) {
            in.skip(in.number<uint64_t>("a string's length"), "a string");
        }
    } else if (const uint64_t size = scalar_size(type)) {
        if (count > in.left() / size) {
            in.need(UINT64_MAX, key.c_str());
        }
        in.skip(count * size, "an array");
    } else {
        throw failure(KOLLAMA_ERROR_FORMAT, format("key '%s' is an array of unknown type %u", key.c_str(), type));
    }
    return format("[%s x %llu]", gguf_type_name(static_cast<gguf_type>(type)), (unsigned long long) count);
}

void read_entry(source_reader & in, kollama_gguf & out) {
    kollama_gguf::entry entry;
    entry.key           = read_text(in, MAX_KEY_BYTES, "a key");
    const uint32_t type = in.number<uint32_t>("a value's type");
    if (type == GGUF_TYPE_STRING) {
        entry.value = read_text(in, in.left(), "a string");
    } else if (type == GGUF_TYPE_ARRAY) {
        entry.value = array(in, entry.key, entry);
    } else if (scalar_size(type)) {
        entry.value = scalar(in, type);
    } else {
        throw failure(KOLLAMA_ERROR_FORMAT, format("key '%s' has a value of unknown type %u", entry.key.c_str(), type));
    }
    out.entries.push_back(std::move(entry));
}

// Size in bytes; false where the shape overflows or does not fit the type's blocks.
bool tensor_bytes(const kollama_gguf::tensor & tensor, uint64_t * n_bytes) {
    const uint64_t block = ggml_blck_size(tensor.type);
    if (tensor.ne[0] % block != 0) {
        return false;
    }
    uint64_t size = ggml_type_size(tensor.type);
    for (int i = 0; i < 4; i++) {
        const uint64_t n = i == 0 ? tensor.ne[0] / block : tensor.ne[i];
        if (n != 0 && size > INT64_MAX / n) {
            return false;
        }
        size *= n;
    }
    *n_bytes = size;
    return true;
}

void read_tensor(source_reader & in, kollama_gguf & out) {
    kollama_gguf::tensor tensor{};
    tensor.name   = read_text(in, MAX_NAME_BYTES, "a tensor's name");
    tensor.n_dims = in.number<uint32_t>("a tensor's rank");
    if (tensor.n_dims > 4) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("tensor '%s' has %u dimensions", tensor.name.c_str(), tensor.n_dims));
    }
    std::fill(tensor.ne, tensor.ne + 4, 1);
    for (uint32_t i = 0; i < tensor.n_dims; i++) {
        tensor.ne[i] = in.number<uint64_t>("a tensor's shape");
    }
    const uint32_t type = in.number<uint32_t>("a tensor's type");
    if (type >= GGML_TYPE_COUNT || ggml_blck_size(static_cast<ggml_type>(type)) <= 0) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("tensor '%s' has the unknown or retired type %u", tensor.name.c_str(), type));
    }
    tensor.type   = static_cast<ggml_type>(type);
    tensor.offset = in.number<uint64_t>("a tensor's offset");
    if (!tensor_bytes(tensor, &tensor.n_bytes)) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("tensor '%s' has a shape that does not fit its type %s",
                                                   tensor.name.c_str(), ggml_type_name(tensor.type)));
    }
    out.tensors.push_back(std::move(tensor));
}

void check_magic(source_reader & in) {
    if (in.left() == 0) {
        throw failure(KOLLAMA_ERROR_FORMAT, "the file is empty");
    }
    char magic[4] = {};
    in.read(magic, static_cast<size_t>(std::min<uint64_t>(4, in.left())), "the magic number");
    if (std::memcmp(magic, "GGUF", 4) == 0) {
        return;
    }
    if (std::memcmp(magic, "algg", 4) == 0) {
        throw failure(KOLLAMA_ERROR_FORMAT, "a LoRA adapter in the GGML format of 2023, not a model");
    }
    std::string seen;
    for (char c : magic) {
        seen += c >= ' ' && c <= '~' ? std::string(1, c) : format("\\x%02x", static_cast<unsigned char>(c));
    }
    throw failure(KOLLAMA_ERROR_FORMAT, "neither a GGUF nor a GGML file of 2023: it begins with '" + seen + "'");
}

void check_tensors(const kollama_gguf & gguf, uint64_t file_size) {
    for (const auto & tensor : gguf.tensors) {
        if (tensor.offset % gguf.alignment != 0) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("tensor '%s' is not aligned", tensor.name.c_str()));
        }
        const uint64_t room = file_size > gguf.data_start ? file_size - gguf.data_start : 0;
        if (tensor.offset > room || tensor.n_bytes > room - tensor.offset) {
            throw failure(KOLLAMA_ERROR_FORMAT,
                          format("truncated: tensor '%s' ends at byte %llu, the file has %llu", tensor.name.c_str(),
                                 (unsigned long long) (gguf.data_start + tensor.offset + tensor.n_bytes),
                                 (unsigned long long) file_size));
        }
    }
}

kollama_gguf scan(source_reader & in) {
    kollama_gguf out;
    out.version = in.number<uint32_t>("the version");
    if (out.version < 2 || out.version > GGUF_VERSION) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("GGUF version %u; versions 2 to %d are known", out.version, GGUF_VERSION));
    }
    const uint64_t n_tensors = in.number<uint64_t>("the number of tensors");
    const uint64_t n_entries = in.number<uint64_t>("the number of keys");
    if (std::max(n_tensors, n_entries) > MAX_COUNT) {
        in.fail(8, format("%llu tensors and %llu keys are claimed; %llu of each are the limit", (unsigned long long) n_tensors,
                          (unsigned long long) n_entries, (unsigned long long) MAX_COUNT));
    }
    for (uint64_t i = 0; i < n_entries; i++) {
        read_entry(in, out);
    }
    for (uint64_t i = 0; i < n_tensors; i++) {
        read_tensor(in, out);
    }
    if (const std::string * alignment = out.find("general.alignment")) {
        out.alignment = std::strtoull(alignment->c_str(), nullptr, 10);
        if (out.alignment == 0 || (out.alignment & (out.alignment - 1)) != 0 || out.alignment > UINT32_MAX) {
            throw failure(KOLLAMA_ERROR_FORMAT, "general.alignment is " + *alignment + ", not a power of two");
        }
    }
    out.data_start = (in.offset() + out.alignment - 1) / out.alignment * out.alignment;
    check_tensors(out, in.offset() + in.left());
    return out;
}

} // namespace

void read_strings(const byte_source & source, const kollama_gguf::entry & array, const std::function<void(std::string &)> & take) {
    source_reader in(source);
    in.skip(array.array_offset, "an array");
    std::string text;
    for (uint64_t i = 0; i < array.array_count; i++) {
        const uint64_t length = in.number<uint64_t>("a string's length");
        in.need(length, "a string");
        text.resize(length);
        in.read(text.data(), length, "a string");
        take(text);
    }
}

std::vector<char> read_array(const byte_source & source, const kollama_gguf::entry & array) {
    source_reader     in(source);
    std::vector<char> bytes;
    in.skip(array.array_offset, "an array");
    in.need(array.array_count * scalar_size(array.array_type), "an array");
    bytes.resize(array.array_count * scalar_size(array.array_type));
    in.read(bytes.data(), bytes.size(), "an array");
    return bytes;
}

kollama_gguf scan_gguf(const byte_source & source) {
    source_reader in(source);
    check_magic(in);
    kollama_gguf out = scan(in);
    out.format       = "gguf";
    return out;
}

} // namespace kollama

using namespace kollama;

const std::string * kollama_gguf::find(const std::string & key) const {
    for (const auto & entry : entries) {
        if (entry.key == key) {
            return &entry.value;
        }
    }
    return nullptr;
}

const kollama_gguf::entry * kollama_gguf::find_array(const std::string & key, gguf_type type) const {
    for (const auto & entry : entries) {
        if (entry.key == key && entry.array_offset != 0 && entry.array_type == static_cast<uint32_t>(type)) {
            return &entry;
        }
    }
    return nullptr;
}

void kollama_gguf_free(kollama_gguf * gguf) {
    delete gguf;
}

const char * kollama_gguf_format(const kollama_gguf * gguf) {
    return gguf->format.c_str();
}

uint32_t kollama_gguf_version(const kollama_gguf * gguf) {
    return gguf->version;
}

size_t kollama_gguf_n_kv(const kollama_gguf * gguf) {
    return gguf->entries.size();
}

const char * kollama_gguf_key(const kollama_gguf * gguf, size_t index, size_t * length) {
    *length = gguf->entries[index].key.size();
    return gguf->entries[index].key.data();
}

const char * kollama_gguf_value(const kollama_gguf * gguf, size_t index, size_t * length) {
    *length = gguf->entries[index].value.size();
    return gguf->entries[index].value.data();
}

size_t kollama_gguf_n_tensors(const kollama_gguf * gguf) {
    return gguf->tensors.size();
}

void kollama_gguf_tensor(const kollama_gguf * gguf, size_t index, kollama_tensor_info * info) {
    const auto & tensor = gguf->tensors[index];
    info->name          = tensor.name.data();
    info->name_length   = tensor.name.size();
    info->type          = ggml_type_name(tensor.type);
    info->n_dims        = tensor.n_dims;
    info->n_bytes       = tensor.n_bytes;
    info->offset        = gguf->data_start + tensor.offset;
    std::copy(tensor.ne, tensor.ne + 4, info->ne);
}
