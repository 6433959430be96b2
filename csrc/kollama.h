// The C face of kollama's native layer: what src/kollama/_core/ binds. It knows no Python.
//
// Conventions
//   - A function that can fail returns a kollama_status; kollama_last_error() then gives the reason,
//     per thread. Results go to out parameters, which are written only on KOLLAMA_OK.
//   - Handles have one owner. Close order is ownership order: sequences, generations and jobs
//     before their context, contexts before their model. A NULL handle may always be freed.
//   - Text is UTF-8 with an explicit length in bytes; it need not end in NUL.
//   - No function here blocks on model compute but kollama_job_wait and kollama_generation_next,
//     and those only as long as they are told to.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#    ifdef KOLLAMA_BUILD
#        define KOLLAMA_API __declspec(dllexport)
#    else
#        define KOLLAMA_API __declspec(dllimport)
#    endif
#else
#    define KOLLAMA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kollama_model      kollama_model;
typedef struct kollama_context    kollama_context;
typedef struct kollama_sequence   kollama_sequence;
typedef struct kollama_row        kollama_row;
typedef struct kollama_sampler    kollama_sampler;
typedef struct kollama_generation kollama_generation;
typedef struct kollama_job        kollama_job;
typedef struct kollama_tokenizer  kollama_tokenizer;
typedef struct kollama_decoder    kollama_decoder;
typedef struct kollama_gguf       kollama_gguf;
typedef struct kollama_blob       kollama_blob;
typedef struct kollama_lora       kollama_lora;
typedef struct kollama_quantization kollama_quantization;
typedef struct kollama_watch      kollama_watch;

typedef enum kollama_status {
    KOLLAMA_OK = 0,
    KOLLAMA_PENDING,            // not an error: ask again
    KOLLAMA_END,                // not an error: nothing more comes
    KOLLAMA_ERROR_ARGUMENT,
    KOLLAMA_ERROR_MEMORY,
    KOLLAMA_ERROR_IO,           // a file cannot be read
    KOLLAMA_ERROR_WRITE,        // a file cannot be written
    KOLLAMA_ERROR_FORMAT,
    KOLLAMA_ERROR_LOAD,
    KOLLAMA_ERROR_TOKEN,
    KOLLAMA_ERROR_CONTEXT_FULL,
    KOLLAMA_ERROR_DECODE,
    KOLLAMA_ERROR_CLOSED,
    KOLLAMA_ERROR_BUSY,
    KOLLAMA_ERROR_ABORTED,
    KOLLAMA_ERROR_STATE,        // a thing is not there yet, e.g. logits before the first append
    KOLLAMA_ERROR_ENGINE,       // an assertion of ggml or llama.cpp failed
    KOLLAMA_ERROR_CALLBACK,     // a caller's callback failed
    KOLLAMA_ERROR_REMOTE,       // another machine that holds layers cannot be reached, or is gone
} kollama_status;

// The reason of the last failure on this thread. Valid until the next failure on it.
KOLLAMA_API const char * kollama_last_error(void);

// ---- runtime: libraries, devices, logs -----------------------------------------------------------

// Loads the backend libraries: of cpu_paths the CPU variant that scores best on this machine, and
// every one of other_paths. Absolute paths only. Further calls do nothing.
KOLLAMA_API kollama_status kollama_runtime_init(
    const char * const * cpu_paths, size_t n_cpu_paths,
    const char * const * other_paths, size_t n_other_paths);

// A further backend library, after kollama_runtime_init; n_devices is how many devices it found. LOAD, with
// the dynamic linker's or ggml's reason, where it cannot be used.
KOLLAMA_API kollama_status kollama_backend_load(const char * path, size_t * n_devices);
KOLLAMA_API bool           kollama_backend_loaded(const char * name); // as ggml names it, e.g. "RPC"

// Ends every engine thread. For the interpreter's exit: what is still open then is never freed.
KOLLAMA_API void kollama_runtime_shutdown(void);

// In a child of fork(): open contexts have lost their threads, so calls are refused from here on.
KOLLAMA_API void kollama_runtime_after_fork(void);

typedef struct kollama_device {
    const char * name;
    const char * description;
    const char * backend;
    const char * type;          // "cpu", "gpu", "igpu", "accel"
    size_t       memory_free;   // bytes
    size_t       memory_total;  // bytes
} kollama_device;

KOLLAMA_API size_t kollama_device_count(void);
KOLLAMA_API void   kollama_device_get(size_t index, kollama_device * device);
KOLLAMA_API bool   kollama_supports_gpu(void); // whether a device of this machine can hold layers

// Serves this machine's devices to models elsewhere, at "IPv4:port": of device_names, or of every GPU, or of
// the CPU. Returns only where it fails. What it says goes to stdout: it is for a process of its own.
KOLLAMA_API kollama_status kollama_rpc_serve(const char * endpoint, const char * cache_dir, int32_t n_threads,
                                             const char * const * device_names, size_t n_device_names);
// Whether a model of this process is connected to that server, which serves one process at a time.
KOLLAMA_API bool kollama_rpc_in_use(const char * endpoint);

KOLLAMA_API const char * kollama_llama_version(void);
KOLLAMA_API const char * kollama_llama_commit(void);

// Log lines wait in a ring until they are fetched. Levels are those of Python's logging.
KOLLAMA_API void    kollama_log_set_level(int level);
// Moves the oldest line to buf and returns its length, or -1 when there is none.
KOLLAMA_API int32_t kollama_log_pop(char * buf, size_t size, int * level);

typedef enum kollama_handle_kind {
    KOLLAMA_HANDLE_MODEL,
    KOLLAMA_HANDLE_CONTEXT,
    KOLLAMA_HANDLE_SEQUENCE,
    KOLLAMA_HANDLE_ROW,
    KOLLAMA_HANDLE_SAMPLER,
    KOLLAMA_HANDLE_GENERATION,
    KOLLAMA_HANDLE_JOB,
    KOLLAMA_HANDLE_TOKENIZER,
    KOLLAMA_HANDLE_DECODER,
    KOLLAMA_HANDLE_BLOB,
    KOLLAMA_HANDLE_LORA,
    KOLLAMA_HANDLE_KINDS,
} kollama_handle_kind;

KOLLAMA_API int64_t kollama_live_handles(kollama_handle_kind kind);

// The least of physical cores, CPU affinity and cgroup quota; at least 1.
KOLLAMA_API int32_t kollama_default_threads(void);

KOLLAMA_API void kollama_free(void * memory); // what an out parameter handed over

// ---- header of a model file ----------------------------------------------------------------------

// Reads the header of a GGUF file with every length checked against the file's size, or that of a
// legacy GGML file as the GGUF that it would be. Split files: the part's own header.
KOLLAMA_API kollama_status kollama_gguf_open(const char * path, kollama_gguf ** out);
KOLLAMA_API void           kollama_gguf_free(kollama_gguf * gguf);

KOLLAMA_API const char * kollama_gguf_format   (const kollama_gguf * gguf); // "gguf", "ggjt v3" ...
KOLLAMA_API uint32_t     kollama_gguf_version  (const kollama_gguf * gguf);
KOLLAMA_API size_t       kollama_gguf_n_kv     (const kollama_gguf * gguf);
KOLLAMA_API const char * kollama_gguf_key      (const kollama_gguf * gguf, size_t index, size_t * length);
// Scalars as text; an array as "[type x count]".
KOLLAMA_API const char * kollama_gguf_value    (const kollama_gguf * gguf, size_t index, size_t * length);
KOLLAMA_API size_t       kollama_gguf_n_tensors(const kollama_gguf * gguf);

typedef struct kollama_tensor_info {
    const char * name;
    size_t       name_length;
    const char * type;
    uint32_t     n_dims;
    uint64_t     ne[4];
    uint64_t     n_bytes;
    uint64_t     offset; // in the file
} kollama_tensor_info;

KOLLAMA_API void kollama_gguf_tensor(const kollama_gguf * gguf, size_t index, kollama_tensor_info * info);

// ---- rows of tensors -----------------------------------------------------------------------------

// Bytes of a row of a type, by ggml's name for it. ARGUMENT: no such type, or the row is no whole number of its blocks.
KOLLAMA_API kollama_status kollama_row_bytes(const char * type, size_t n_per_row, size_t * n_bytes);
// Rows of floats as blocks of a type, as llama_model_quantize makes them without an importance matrix. dst has
// n_rows times kollama_row_bytes. FORMAT: a value is not finite, or too large. Threads may call it at a time.
KOLLAMA_API kollama_status kollama_quantize_rows(const char * type, const float * src, size_t n_rows, size_t n_per_row, void * dst);

// ---- quantization --------------------------------------------------------------------------------
// kollama_runtime_init must have run. One thread at a time works on a handle.

// Names in lower case; NULL beyond the last.
KOLLAMA_API const char * kollama_quantize_file_type  (size_t index);
KOLLAMA_API const char * kollama_quantize_tensor_type(size_t index);

typedef struct kollama_tensor_type {
    const char * name; // of a tensor
    const char * type;
} kollama_tensor_type;

typedef struct kollama_importance {
    const char *  name;   // of a tensor
    const float * values; // for each column, and each expert: mean square of what it is multiplied with
    size_t        n_values;
} kollama_importance;

typedef struct kollama_quantize_params {
    const char *                type;           // one of kollama_quantize_file_type
    const char *                output_type;    // of the output matrix; NULL: as type has it
    const char *                embedding_type; // of the token embeddings; NULL: as type has it
    const kollama_tensor_type * overrides;      // one for a tensor
    size_t                      n_overrides;
    const kollama_importance *  importance;
    size_t                      n_importance;
    const char *                importance_file;    // for the metadata; NULL: none
    const char *                importance_dataset; // likewise
    int32_t                     importance_chunks;  // likewise; -1: unknown
    bool                        allow_requantize;
    bool                        leave_output;
    bool                        pure;
} kollama_quantize_params;

typedef struct kollama_quantized_tensor {
    const char * name;
    const char * from;          // types
    const char * to;
    uint64_t     n_bytes_from;
    uint64_t     n_bytes_to;
    bool         needs_importance; // and there is none for it
} kollama_quantized_tensor;

// A GGUF, or the first part of a split one.
KOLLAMA_API kollama_status kollama_quantization_open(const char * path, kollama_quantization ** out);
KOLLAMA_API void           kollama_quantization_free(kollama_quantization * quantization);
// What becomes of each tensor, and the exact size of the new file. Copies what params points to.
KOLLAMA_API kollama_status kollama_quantization_plan(kollama_quantization * quantization, const kollama_quantize_params * params);

// The files it is read from; NULL beyond the last.
KOLLAMA_API const char * kollama_quantization_part(const kollama_quantization * quantization, size_t index);
KOLLAMA_API size_t   kollama_quantization_n_tensors(const kollama_quantization * quantization);
KOLLAMA_API void     kollama_quantization_tensor(
    const kollama_quantization * quantization, size_t index, kollama_quantized_tensor * tensor);
KOLLAMA_API uint64_t kollama_quantization_size_before(const kollama_quantization * quantization); // of the files, bytes
KOLLAMA_API uint64_t kollama_quantization_size_after (const kollama_quantization * quantization);

// Does as planned. Blocks; calls progress every 20 ms or sooner, from this thread: 0 stops it (ABORTED).
KOLLAMA_API kollama_status kollama_quantization_run(
    kollama_quantization * quantization, const char * path, int32_t n_threads,
    int (*progress)(float done, void * user), void * user);

// ---- model ---------------------------------------------------------------------------------------

typedef enum kollama_load_mode {
    KOLLAMA_LOAD_AUTO,  // no mapping where the CPU repacks most of the weights, else a mapping
    KOLLAMA_LOAD_READ,
    KOLLAMA_LOAD_MMAP,
} kollama_load_mode;

typedef int (*kollama_progress)(float done, void * user); // 0 stops the load

#define KOLLAMA_LAYERS_ALL  -1
#define KOLLAMA_LAYERS_AUTO -2

typedef struct kollama_model_params {
    int32_t           n_gpu_layers; // KOLLAMA_LAYERS_ALL, KOLLAMA_LAYERS_AUTO: what fits
    kollama_load_mode load_mode;
    bool              mlock;
    bool              vocab_only;
    float             rms_norm_eps; // of a legacy file, which does not have it; <= 0: Llama-2's 1e-5
    const char *      tokenizer;    // path of a tokenizer.json that replaces the file's rules, or NULL
    kollama_progress  progress;
    void *            progress_user;
    const char * const * servers;   // "host:port" of RPC servers, which hold layers beside the GPUs of this machine
    size_t            n_servers;
} kollama_model_params;

// paths: one file (of a split model the first part), or all parts in order.
KOLLAMA_API kollama_status kollama_model_load(
    const char * const * paths, size_t n_paths, const kollama_model_params * params, kollama_model ** out);
// KOLLAMA_ERROR_BUSY while contexts or adapters of it are open or it is pinned.
KOLLAMA_API kollama_status kollama_model_free(kollama_model * model);
// Pinned, a model cannot be freed: for calls that run without Python's lock.
KOLLAMA_API void kollama_model_pin  (kollama_model * model);
KOLLAMA_API void kollama_model_unpin(kollama_model * model);

KOLLAMA_API const char * kollama_model_format (const kollama_model * model); // "gguf", "ggjt v3" ...
KOLLAMA_API int32_t  kollama_model_n_vocab    (const kollama_model * model);
KOLLAMA_API int32_t  kollama_model_n_ctx_train(const kollama_model * model);
KOLLAMA_API int32_t  kollama_model_n_embd     (const kollama_model * model);
KOLLAMA_API int32_t  kollama_model_n_embd_out (const kollama_model * model); // of an embedding
KOLLAMA_API int32_t  kollama_model_n_layer    (const kollama_model * model);
KOLLAMA_API int32_t  kollama_model_n_gpu_layers(const kollama_model * model); // the output layer counts as one
KOLLAMA_API uint64_t kollama_model_n_params   (const kollama_model * model);
KOLLAMA_API uint64_t kollama_model_size       (const kollama_model * model);
KOLLAMA_API bool     kollama_model_uses_mmap  (const kollama_model * model);
KOLLAMA_API int32_t  kollama_model_desc       (const kollama_model * model, char * buf, size_t size);
KOLLAMA_API int32_t  kollama_model_meta_count (const kollama_model * model);
// Length in bytes; more than size - 1 means "call again with this much". Negative: no such index.
KOLLAMA_API int32_t  kollama_model_meta_key   (const kollama_model * model, int32_t index, char * buf, size_t size);
KOLLAMA_API int32_t  kollama_model_meta_value (const kollama_model * model, int32_t index, char * buf, size_t size);
KOLLAMA_API const char * kollama_model_chat_template(const kollama_model * model); // NULL: none

typedef struct kollama_rank_info {
    int32_t      n_scores;    // of the classification head; 0: there is none
    int32_t      bos, eos, sep; // -1: none
    bool         add_bos, add_eos, add_sep;
    const char * prompt;      // the file's, with {query} and {document}, or NULL
} kollama_rank_info;

KOLLAMA_API void kollama_model_get_rank_info(const kollama_model * model, kollama_rank_info * info);

// ---- conversion ----------------------------------------------------------------------------------

typedef struct kollama_convert_params {
    float            rms_norm_eps; // <= 0: Llama-2's 1e-5
    const char *     tokenizer;    // path of a tokenizer.json to keep in the result, or NULL
    kollama_progress progress;
    void *           progress_user;
} kollama_convert_params;

// Writes a legacy GGML file as a GGUF, in constant memory. What is at out is overwritten.
KOLLAMA_API kollama_status kollama_convert_legacy(const char * path, const char * out, const kollama_convert_params * params);

// ---- tokenizer -----------------------------------------------------------------------------------
// Immutable; callable from any thread.

// Reads a tokenizer.json, a GGUF or a legacy GGML file. kollama_runtime_init must have run for a GGUF.
KOLLAMA_API kollama_status kollama_tokenizer_load(const char * path, kollama_tokenizer ** out);
// The model's own: a handle that shares it. llama.cpp's kinds of vocabulary need the model alive.
KOLLAMA_API kollama_status kollama_model_tokenizer(const kollama_model * model, kollama_tokenizer ** out);
KOLLAMA_API void           kollama_tokenizer_free (kollama_tokenizer * tokenizer);

typedef struct kollama_tokenizer_info {
    int32_t n_tokens;
    int32_t bos, eos;   // -1: none
    bool    add_bos;    // the file asks for it
    bool    is_native;  // not done by llama.cpp
} kollama_tokenizer_info;

KOLLAMA_API void kollama_tokenizer_get_info(const kollama_tokenizer * tokenizer, kollama_tokenizer_info * info);
KOLLAMA_API bool kollama_token_is_eog(const kollama_tokenizer * tokenizer, int32_t token);
// The vocabulary's own text of an id; false where there is none.
KOLLAMA_API bool    kollama_token_piece(const kollama_tokenizer * tokenizer, int32_t token, const char ** piece, size_t * length);
KOLLAMA_API int32_t kollama_token_id   (const kollama_tokenizer * tokenizer, const char * piece, size_t length); // -1: none
// What a token adds to a text; of an id that the file has no piece for, nothing.
KOLLAMA_API kollama_status kollama_token_bytes(
    const kollama_tokenizer * tokenizer, int32_t token, const char ** bytes, size_t * length, bool * special);

typedef struct kollama_text {
    const char * data; // UTF-8
    size_t       size; // bytes
} kollama_text;

typedef struct kollama_encode_params {
    bool add_bos;
    bool parse_special; // special tokens in the text are read as tokens
} kollama_encode_params;

typedef enum kollama_text_encoding {
    KOLLAMA_BYTES, // UTF-8; what tokens decode to need not be valid
    KOLLAMA_UTF16, // in the byte order of the machine; in decoding, bytes that are not valid UTF-8 are U+FFFD
} kollama_text_encoding;

typedef struct kollama_encoded_text {
    const char *          data; // need not be aligned
    size_t                size; // bytes
    kollama_text_encoding encoding;
} kollama_encoded_text;

// tokens, and where offsets is not NULL two character offsets for each: free with kollama_free.
KOLLAMA_API kollama_status kollama_encode(
    const kollama_tokenizer * tokenizer, const kollama_encoded_text * text, const kollama_encode_params * params,
    int32_t ** tokens, size_t * n_tokens, int32_t ** offsets);
// The tokens of all texts one after another; ends[i]: where those of text i end.
KOLLAMA_API kollama_status kollama_encode_batch(
    const kollama_tokenizer * tokenizer, const kollama_encoded_text * texts, size_t n_texts,
    const kollama_encode_params * params, int32_t n_threads, int32_t ** tokens, size_t * ends);

// text lies in memory, which is freed with kollama_free.
KOLLAMA_API kollama_status kollama_decode(
    const kollama_tokenizer * tokenizer, const int32_t * tokens, size_t n_tokens, bool skip_special,
    kollama_text_encoding encoding, char ** memory, const char ** text, size_t * size);

// Incremental: tokens in, complete characters out, as UTF-8.
KOLLAMA_API kollama_decoder * kollama_decoder_init(const kollama_tokenizer * tokenizer, bool skip_special);
KOLLAMA_API void              kollama_decoder_free(kollama_decoder * decoder);
// text stays valid until the next call.
KOLLAMA_API kollama_status    kollama_decoder_push (kollama_decoder * decoder, int32_t token, const char ** text, size_t * length);
KOLLAMA_API kollama_status    kollama_decoder_flush(kollama_decoder * decoder, const char ** text, size_t * length);

// ---- context -------------------------------------------------------------------------------------

typedef enum kollama_draft {
    KOLLAMA_DRAFT_NONE,
    KOLLAMA_DRAFT_LOOKUP, // what followed the last tokens where they stood before
    KOLLAMA_DRAFT_MODEL,  // what a smaller model of the same vocabulary takes for the likeliest
} kollama_draft;

typedef struct kollama_context_params {
    uint32_t     n_ctx;
    uint32_t     n_batch;
    uint32_t     n_ubatch;
    uint32_t     n_seq_max;
    int32_t      n_threads;
    bool         swa_full;
    int32_t      flash_attn;   // -1 auto, 0 off, 1 on
    const char * type_k;       // ggml type names, e.g. "f16"
    const char * type_v;
    bool         embeddings;   // for kollama_context_embed, and nothing else
    bool         file_pools;   // the model's file names a pooling, which would be llama.cpp's default
    bool         ranks;        // with embeddings: KOLLAMA_POOLING_RANK, and no other; n_ubatch holds a text
    kollama_draft   draft;       // where its generations get guesses of the next tokens from
    kollama_model * draft_model; // for KOLLAMA_DRAFT_MODEL; counts as one with an open context
} kollama_context_params;

KOLLAMA_API kollama_status kollama_context_init(kollama_model * model, const kollama_context_params * params, kollama_context ** out);
// Ends what runs; its sequences and generations stay valid handles that answer KOLLAMA_ERROR_CLOSED.
KOLLAMA_API void           kollama_context_free(kollama_context * ctx);

// Whether its sequences can drop tokens in the middle (kollama_sequence_shift). ARGUMENT, with the reason, where not.
KOLLAMA_API kollama_status kollama_context_check_shift(kollama_context * ctx);

typedef enum kollama_pooling {
    KOLLAMA_POOLING_NONE, // a row for each token
    KOLLAMA_POOLING_MEAN,
    KOLLAMA_POOLING_CLS,  // the first token's
    KOLLAMA_POOLING_LAST,
    KOLLAMA_POOLING_RANK, // the scores of the model's classification head
} kollama_pooling;

// The hidden states of texts, one after another in tokens; ends[i]: where those of text i end. out
// has a row of kollama_model_n_embd_out floats for each text, or for each token; with RANK of n_scores. All of it is the
// caller's memory until the job has ended.
KOLLAMA_API kollama_status kollama_context_embed(
    kollama_context * ctx, const int32_t * tokens, const size_t * ends, size_t n_texts, kollama_pooling pooling,
    float * out, kollama_job ** job);

// ---- adapters ------------------------------------------------------------------------------------

// A GGUF with a LoRA adapter of this model. Freed once no context uses it either.
KOLLAMA_API kollama_status kollama_lora_load (kollama_model * model, const char * path, kollama_lora ** out);
KOLLAMA_API void           kollama_lora_free (kollama_lora * lora);
KOLLAMA_API float          kollama_lora_alpha(const kollama_lora * lora);
KOLLAMA_API size_t         kollama_lora_n_kv (const kollama_lora * lora);
KOLLAMA_API const char *   kollama_lora_key  (const kollama_lora * lora, size_t index, size_t * length);
KOLLAMA_API const char *   kollama_lora_value(const kollama_lora * lora, size_t index, size_t * length);

// In place of those that the context has. STATE while a sequence of it holds tokens, BUSY while one is
// at work; the same for control vectors.
KOLLAMA_API kollama_status kollama_context_set_loras(
    kollama_context * ctx, kollama_lora * const * loras, const float * scales, size_t n_loras, kollama_job ** out);
// n_embd numbers for each layer from 1 on, added to what layers first to last give; n_data 0: none.
KOLLAMA_API kollama_status kollama_context_set_control_vector(
    kollama_context * ctx, const float * data, size_t n_data, int32_t first, int32_t last, kollama_job ** out);

// ---- jobs: what the engine thread of a context does for a caller ---------------------------------

KOLLAMA_API kollama_status kollama_job_wait  (kollama_job * job, int32_t timeout_ms); // PENDING, or how it ended
KOLLAMA_API void           kollama_job_cancel(kollama_job * job); // ends with ABORTED within one graph
KOLLAMA_API void           kollama_job_free  (kollama_job * job);

// ---- sequences -----------------------------------------------------------------------------------

KOLLAMA_API kollama_status kollama_sequence_init(kollama_context * ctx, kollama_sequence ** out);
KOLLAMA_API void           kollama_sequence_free(kollama_sequence * seq);

KOLLAMA_API kollama_status kollama_sequence_append(kollama_sequence * seq, const int32_t * tokens, size_t n_tokens, kollama_job ** out);
KOLLAMA_API kollama_status kollama_sequence_rewind(kollama_sequence * seq, size_t n_keep, kollama_job ** out);
// Drops n_discard tokens behind the first n_keep, and moves those after them up. ARGUMENT where this
// memory cannot do it, STATE where a fork shares what would be moved.
KOLLAMA_API kollama_status kollama_sequence_shift (kollama_sequence * seq, size_t n_keep, size_t n_discard, kollama_job ** out);
KOLLAMA_API kollama_status kollama_sequence_fork  (kollama_sequence * seq, kollama_sequence * dst, kollama_job ** out);

// The sequence as bytes: blob is filled once the job has ended. A blob is refused by another model,
// another build and another kind of cache; one that is refused later, for lack of room, leaves the
// sequence empty. Its memory is the caller's until the job has ended.
KOLLAMA_API kollama_status kollama_sequence_save(kollama_sequence * seq, kollama_blob ** blob, kollama_job ** out);
KOLLAMA_API kollama_status kollama_sequence_load(kollama_sequence * seq, const void * blob, size_t size, kollama_job ** out);
KOLLAMA_API const void *   kollama_blob_data(const kollama_blob * blob, size_t * size);
KOLLAMA_API void           kollama_blob_free(kollama_blob * blob);

// KOLLAMA_ERROR_BUSY while a job or a generation works on the sequence.
KOLLAMA_API kollama_status kollama_sequence_length(kollama_sequence * seq, size_t * n_tokens);
// Of the first tokens, those whose memory is what reading them anew would give: all, or what a shift kept.
KOLLAMA_API kollama_status kollama_sequence_n_exact(kollama_sequence * seq, size_t * n_tokens);
KOLLAMA_API kollama_status kollama_sequence_tokens(kollama_sequence * seq, int32_t * tokens, size_t n_tokens);
// The row of the last token's logits, retained for the caller.
KOLLAMA_API kollama_status kollama_sequence_logits(kollama_sequence * seq, kollama_row ** out);

KOLLAMA_API float * kollama_row_data   (kollama_row * row);
KOLLAMA_API size_t  kollama_row_size   (const kollama_row * row); // floats
KOLLAMA_API void    kollama_row_retain (kollama_row * row);
KOLLAMA_API void    kollama_row_release(kollama_row * row);

// ---- sampling ------------------------------------------------------------------------------------

typedef struct kollama_sampler_params {
    float    temperature; // <= 0: greedy
    int32_t  top_k;       // <= 0: off
    float    top_p;       // >= 1: off
    float    min_p;       // <= 0: off
    uint32_t seed;
} kollama_sampler_params;

KOLLAMA_API kollama_sampler * kollama_sampler_init(const kollama_sampler_params * params);
KOLLAMA_API void              kollama_sampler_free(kollama_sampler * sampler);
KOLLAMA_API kollama_status    kollama_sampler_clone(kollama_sampler * sampler, kollama_sampler ** out);

#define KOLLAMA_MAX_LAST_N 1048576

// Links of a chain, in the order they are added. The first one makes the sampler's parameters but
// the seed void. A chain that ends without choosing takes the most likely token.
typedef enum kollama_link_kind {
    KOLLAMA_LINK_PENALTIES,   // last_n (-1: n_ctx_train), repeat, frequency, presence
    KOLLAMA_LINK_TOP_N_SIGMA, // n
    KOLLAMA_LINK_TOP_K,       // k
    KOLLAMA_LINK_TYPICAL_P,   // p, min_keep
    KOLLAMA_LINK_TOP_P,       // p, min_keep
    KOLLAMA_LINK_MIN_P,       // p, min_keep
    KOLLAMA_LINK_XTC,         // probability, threshold, min_keep
    KOLLAMA_LINK_TEMPERATURE, // temperature, dynatemp_range, dynatemp_exponent
    KOLLAMA_LINK_MIROSTAT,    // tau, eta; chooses, as those below but infill
    KOLLAMA_LINK_MIROSTAT_V2, // tau, eta
    KOLLAMA_LINK_ADAPTIVE_P,  // target, decay
    KOLLAMA_LINK_INFILL,
    KOLLAMA_LINK_DRAW,        // by probability
} kollama_link_kind;

KOLLAMA_API kollama_status kollama_sampler_add(kollama_sampler * sampler, kollama_link_kind kind, const double * values, size_t n_values);
// multiplier, base, allowed_length, last_n (-1: n_ctx_train)
KOLLAMA_API kollama_status kollama_sampler_add_dry(
    kollama_sampler * sampler, const double * values, size_t n_values, const kollama_text * breakers, size_t n_breakers);
// Each by id, or where texts[i].data is not NULL by the tokens of a text.
KOLLAMA_API kollama_status kollama_sampler_add_bias(
    kollama_sampler * sampler, const int32_t * ids, const kollama_text * texts, const float * biases, size_t count);

// GBNF. ARGUMENT where it is malformed; what it asks of the vocabulary is seen by the first use.
KOLLAMA_API kollama_status kollama_sampler_add_grammar(kollama_sampler * sampler, const kollama_text * grammar, const kollama_text * root);

// Changes the row that follows tokens: n_vocab logits, those of removed candidates -inf. Not 0: it
// failed, and so does the sample, with CALLBACK.
typedef int (*kollama_callback)(void * user, size_t index, const int32_t * tokens, size_t n_tokens, kollama_row * row);

// A sampler with such a link works on the threads that call kollama_sampler_sample and
// kollama_generation_next, not on the engine's.
KOLLAMA_API kollama_status kollama_sampler_add_callback(kollama_sampler * sampler, const kollama_text * name, size_t index);
KOLLAMA_API void kollama_sampler_set_callback(kollama_sampler * sampler, kollama_callback callback, void * user);

// What a library of the caller's says of the next token: of a matcher, which is known by its index.
// Each returns a negative number where it failed; so does what asked it, with CALLBACK. They are called
// on the threads that make a generation, sample, or run the engine, one at a time for one sampler.
typedef struct kollama_matcher_calls {
    int (*bind)  (void * user, size_t index, const kollama_model * model); // whose tokens it will see
    int (*begin) (void * user, size_t index);                // a stream begins
    int (*allows)(void * user, size_t index, int32_t token); // 1: it may come next; 0: it may not
    int (*accept)(void * user, size_t index, int32_t token); // 1: nothing but an end token can follow it
    int (*mask)  (void * user, size_t index, uint32_t * bits, size_t n_words); // bit i: token i may come
} kollama_matcher_calls;

KOLLAMA_API kollama_status kollama_sampler_add_matcher(kollama_sampler * sampler, const kollama_text * name, size_t index);
KOLLAMA_API void kollama_sampler_set_matchers(kollama_sampler * sampler, const kollama_matcher_calls * calls, void * user);

// Of links that only forbid, grammars and matchers: the sampler's parameters choose from what is left.
KOLLAMA_API void kollama_sampler_choose_by_params(kollama_sampler * sampler);

// Chooses what follows the sequence. A chain learns the vocabulary by its first use with a model.
KOLLAMA_API kollama_status    kollama_sampler_sample(kollama_sampler * sampler, kollama_sequence * seq, int32_t * token);

// ---- generation: the default loop, on the engine thread ------------------------------------------

typedef struct kollama_generation_params {
    int64_t              max_tokens;   // < 0: until an end token or the context is full
    bool                 ignore_eos;
    int32_t              ahead;        // tokens computed before they are asked for; at least 1
    const char * const * stops;
    const size_t *       stop_lengths;
    size_t               n_stops;
    size_t               n_top;        // most likely tokens to give with each event
    size_t               shift_at;     // tokens in memory at which older ones are dropped; 0: never
    size_t               n_keep;       // tokens of the prompt that are never dropped
    kollama_watch *      watch;        // that tells of it, or null
    uint64_t             key;          // by which it does
} kollama_generation_params;

typedef enum kollama_finish {
    KOLLAMA_FINISH_NONE,
    KOLLAMA_FINISH_STOP,       // a stop string, or a matcher lets nothing more come
    KOLLAMA_FINISH_LENGTH,     // max_tokens, or the context is full
    KOLLAMA_FINISH_EOS,        // an end-of-generation token
    KOLLAMA_FINISH_CANCELLED,
} kollama_finish;

typedef struct kollama_logprob {
    int32_t token;
    float   logprob;
} kollama_logprob;

typedef struct kollama_event {
    int32_t        token;
    float          logprob;     // natural log, of the model's own distribution
    const char *   text;        // complete characters; valid until the next call
    size_t         length;
    kollama_finish finish;      // of the last event; NONE before
    const kollama_logprob * top; // by logprob, the largest first; valid until the next call
    size_t         n_top;
} kollama_event;

typedef struct kollama_generation_stats {
    size_t         n_prompt;         // tokens of the prompt
    size_t         n_reused;         // of these, already in memory from before
    size_t         n_generated;      // sampled ids handed out
    size_t         n_drafted;        // tokens that were guessed and tried
    size_t         n_accepted;       // of these, those that were chosen
    double         prompt_seconds;
    double         generate_seconds; // after the first token
    kollama_finish finish;
    char           incomplete[4];    // bytes of an unfinished character at the end
    size_t         incomplete_length;
} kollama_generation_stats;

// Takes the sequence over until it is freed, keeps what it shares with the prompt and reads the
// rest. The sampler is used by this generation alone until then.
KOLLAMA_API kollama_status kollama_generation_init(
    kollama_sequence * seq, kollama_sampler * sampler, const int32_t * prompt, size_t n_prompt,
    const kollama_generation_params * params, kollama_generation ** out);
KOLLAMA_API void           kollama_generation_free(kollama_generation * gen);

// OK with an event, PENDING after timeout_ms, END after the last event, or why it failed.
KOLLAMA_API kollama_status kollama_generation_next  (kollama_generation * gen, int32_t timeout_ms, kollama_event * event);
// Puts a token in the place of the last one handed out, be it the last of all: the next event is of
// this token, and what follows goes on from it. sampler is the generation's own.
KOLLAMA_API kollama_status kollama_generation_send(kollama_generation * gen, kollama_sampler * sampler, int32_t token);
// Asks it to end, and returns at once.
KOLLAMA_API void           kollama_generation_request_cancel(kollama_generation * gen);
// Ends it within one graph; the sequence keeps what it has read.
KOLLAMA_API void           kollama_generation_cancel(kollama_generation * gen);
KOLLAMA_API void           kollama_generation_get_stats(kollama_generation * gen, kollama_generation_stats * stats);

// ---- watching: many generations, and no thread that waits in each --------------------------------

typedef enum kollama_news {
    KOLLAMA_NEWS_NONE,   // next would wait; the watch tells of the generation once it would not
    KOLLAMA_NEWS_TOKEN,  // next gives one
    KOLLAMA_NEWS_CHOICE, // next runs the sampler's callback
    KOLLAMA_NEWS_END,    // ended or failed; next gives the tokens that are left
} kollama_news;

// Never waits. for_end: there is no news in a token, only in a choice and the end.
KOLLAMA_API kollama_news   kollama_generation_look(kollama_generation * gen, bool for_end);

// Of those generations of a context that were made with it, for one thread at a time. It may outlive the context.
KOLLAMA_API kollama_status kollama_watch_init(kollama_context * ctx, kollama_watch ** out);
KOLLAMA_API void           kollama_watch_free(kollama_watch * watch);
// OK with the keys of those that have news, valid until the next call; PENDING after timeout_ms; END
// once the context is closed and all was told.
KOLLAMA_API kollama_status kollama_watch_wait(kollama_watch * watch, int32_t timeout_ms, const uint64_t ** keys, size_t * n_keys);
// The call that waits, or the next one, gives this key, too: from any thread.
KOLLAMA_API kollama_status kollama_watch_tell(kollama_watch * watch, uint64_t key);
// The call that waits, and every later one, gives END: from any thread.
KOLLAMA_API void           kollama_watch_end (kollama_watch * watch);

#ifdef __cplusplus
}
#endif
