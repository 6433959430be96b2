"""csrc/kollama.h, declaration by declaration."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "kollama.h" nogil:
    ctypedef struct kollama_model:
        pass
    ctypedef struct kollama_context:
        pass
    ctypedef struct kollama_sequence:
        pass
    ctypedef struct kollama_row:
        pass
    ctypedef struct kollama_sampler:
        pass
    ctypedef struct kollama_generation:
        pass
    ctypedef struct kollama_job:
        pass
    ctypedef struct kollama_tokenizer:
        pass
    ctypedef struct kollama_decoder:
        pass
    ctypedef struct kollama_gguf:
        pass
    ctypedef struct kollama_blob:
        pass
    ctypedef struct kollama_quantization:
        pass
    ctypedef struct kollama_watch:
        pass
    ctypedef struct kollama_lora:
        pass

    ctypedef enum kollama_status:
        KOLLAMA_OK
        KOLLAMA_PENDING
        KOLLAMA_END
        KOLLAMA_ERROR_ARGUMENT
        KOLLAMA_ERROR_MEMORY
        KOLLAMA_ERROR_IO
        KOLLAMA_ERROR_WRITE
        KOLLAMA_ERROR_FORMAT
        KOLLAMA_ERROR_LOAD
        KOLLAMA_ERROR_TOKEN
        KOLLAMA_ERROR_CONTEXT_FULL
        KOLLAMA_ERROR_DECODE
        KOLLAMA_ERROR_CLOSED
        KOLLAMA_ERROR_BUSY
        KOLLAMA_ERROR_ABORTED
        KOLLAMA_ERROR_STATE
        KOLLAMA_ERROR_ENGINE
        KOLLAMA_ERROR_CALLBACK
        KOLLAMA_ERROR_REMOTE
    const char * kollama_last_error()
    kollama_status kollama_runtime_init(
        const char * const * cpu_paths, size_t n_cpu_paths, const char * const * other_paths,
        size_t n_other_paths)
    kollama_status kollama_backend_load(const char * path, size_t * n_devices)
    bint kollama_backend_loaded(const char * name)
    void kollama_runtime_shutdown()
    void kollama_runtime_after_fork()

    ctypedef struct kollama_device:
        const char * name
        const char * description
        const char * backend
        const char * type
        size_t memory_free
        size_t memory_total
    size_t kollama_device_count()
    void kollama_device_get(size_t index, kollama_device * device)
    bint kollama_supports_gpu()
    kollama_status kollama_rpc_serve(
        const char * endpoint, const char * cache_dir, int32_t n_threads,
        const char * const * device_names, size_t n_device_names)
    bint kollama_rpc_in_use(const char * endpoint)
    const char * kollama_llama_version()
    const char * kollama_llama_commit()
    void kollama_log_set_level(int level)
    int32_t kollama_log_pop(char * buf, size_t size, int * level)

    ctypedef enum kollama_handle_kind:
        KOLLAMA_HANDLE_MODEL
        KOLLAMA_HANDLE_CONTEXT
        KOLLAMA_HANDLE_SEQUENCE
        KOLLAMA_HANDLE_ROW
        KOLLAMA_HANDLE_SAMPLER
        KOLLAMA_HANDLE_GENERATION
        KOLLAMA_HANDLE_JOB
        KOLLAMA_HANDLE_TOKENIZER
        KOLLAMA_HANDLE_DECODER
        KOLLAMA_HANDLE_BLOB
        KOLLAMA_HANDLE_LORA
        KOLLAMA_HANDLE_KINDS
    int64_t kollama_live_handles(kollama_handle_kind kind)
    int32_t kollama_default_threads()
    void kollama_free(void * memory)
    kollama_status kollama_gguf_open(const char * path, kollama_gguf ** out)
    void kollama_gguf_free(kollama_gguf * gguf)
    const char * kollama_gguf_format(const kollama_gguf * gguf)
    uint32_t kollama_gguf_version(const kollama_gguf * gguf)
    size_t kollama_gguf_n_kv(const kollama_gguf * gguf)
    const char * kollama_gguf_key(const kollama_gguf * gguf, size_t index, size_t * length)
    const char * kollama_gguf_value(const kollama_gguf * gguf, size_t index, size_t * length)
    size_t kollama_gguf_n_tensors(const kollama_gguf * gguf)

    ctypedef struct kollama_tensor_info:
        const char * name
        size_t name_length
        const char * type
        uint32_t n_dims
        uint64_t ne[4]
        uint64_t n_bytes
        uint64_t offset
    void kollama_gguf_tensor(const kollama_gguf * gguf, size_t index, kollama_tensor_info * info)

    kollama_status kollama_row_bytes(const char * type, size_t n_per_row, size_t * n_bytes)
    kollama_status kollama_quantize_rows(
        const char * type, const float * src, size_t n_rows, size_t n_per_row, void * dst)

    const char * kollama_quantize_file_type(size_t index)
    const char * kollama_quantize_tensor_type(size_t index)

    ctypedef struct kollama_tensor_type:
        const char * name
        const char * type

    ctypedef struct kollama_importance:
        const char * name
        const float * values
        size_t n_values

    ctypedef struct kollama_quantize_params:
        const char * type
        const char * output_type
        const char * embedding_type
        const kollama_tensor_type * overrides
        size_t n_overrides
        const kollama_importance * importance
        size_t n_importance
        const char * importance_file
        const char * importance_dataset
        int32_t importance_chunks
        bint allow_requantize
        bint leave_output
        bint pure

    ctypedef struct kollama_quantized_tensor:
        const char * name
        const char * from_ "from"
        const char * to
        uint64_t n_bytes_from
        uint64_t n_bytes_to
        bint needs_importance
    kollama_status kollama_quantization_open(const char * path, kollama_quantization ** out)
    void kollama_quantization_free(kollama_quantization * quantization)
    kollama_status kollama_quantization_plan(
        kollama_quantization * quantization, const kollama_quantize_params * params)
    const char * kollama_quantization_part(
        const kollama_quantization * quantization, size_t index)
    size_t kollama_quantization_n_tensors(const kollama_quantization * quantization)
    void kollama_quantization_tensor(
        const kollama_quantization * quantization, size_t index, kollama_quantized_tensor * tensor)
    uint64_t kollama_quantization_size_before(const kollama_quantization * quantization)
    uint64_t kollama_quantization_size_after(const kollama_quantization * quantization)
    kollama_status kollama_quantization_run(
        kollama_quantization * quantization, const char * path, int32_t n_threads,
        int (*progress)(float done, void * user) noexcept, void * user)

    ctypedef enum kollama_load_mode:
        KOLLAMA_LOAD_AUTO
        KOLLAMA_LOAD_READ
        KOLLAMA_LOAD_MMAP

    ctypedef int (*kollama_progress)(float done, void * user) noexcept

    cdef int KOLLAMA_LAYERS_ALL
    cdef int KOLLAMA_LAYERS_AUTO

    ctypedef struct kollama_model_params:
        int32_t n_gpu_layers
        kollama_load_mode load_mode
        bint mlock
        bint vocab_only
        float rms_norm_eps
        const char * tokenizer
        kollama_progress progress
        void * progress_user
        const char * const * servers
        size_t n_servers
    kollama_status kollama_model_load(
        const char * const * paths, size_t n_paths, const kollama_model_params * params,
        kollama_model ** out)
    kollama_status kollama_model_free(kollama_model * model)
    void kollama_model_pin(kollama_model * model)
    void kollama_model_unpin(kollama_model * model)
    const char * kollama_model_format(const kollama_model * model)
    int32_t kollama_model_n_vocab(const kollama_model * model)
    int32_t kollama_model_n_ctx_train(const kollama_model * model)
    int32_t kollama_model_n_embd(const kollama_model * model)
    int32_t kollama_model_n_embd_out(const kollama_model * model)
    int32_t kollama_model_n_layer(const kollama_model * model)
    int32_t kollama_model_n_gpu_layers(const kollama_model * model)
    uint64_t kollama_model_n_params(const kollama_model * model)
    uint64_t kollama_model_size(const kollama_model * model)
    bint kollama_model_uses_mmap(const kollama_model * model)
    int32_t kollama_model_desc(const kollama_model * model, char * buf, size_t size)
    int32_t kollama_model_meta_count(const kollama_model * model)
    int32_t kollama_model_meta_key(
        const kollama_model * model, int32_t index, char * buf, size_t size)
    int32_t kollama_model_meta_value(
        const kollama_model * model, int32_t index, char * buf, size_t size)
    const char * kollama_model_chat_template(const kollama_model * model)

    ctypedef struct kollama_rank_info:
        int32_t n_scores
        int32_t bos
        int32_t eos
        int32_t sep
        bint add_bos
        bint add_eos
        bint add_sep
        const char * prompt
    void kollama_model_get_rank_info(const kollama_model * model, kollama_rank_info * info)

    ctypedef struct kollama_convert_params:
        float rms_norm_eps
        const char * tokenizer
        kollama_progress progress
        void * progress_user
    kollama_status kollama_convert_legacy(
        const char * path, const char * out, const kollama_convert_params * params)
    kollama_status kollama_tokenizer_load(const char * path, kollama_tokenizer ** out)
    kollama_status kollama_model_tokenizer(
        const kollama_model * model, kollama_tokenizer ** out)
    void kollama_tokenizer_free(kollama_tokenizer * tokenizer)

    ctypedef struct kollama_tokenizer_info:
        int32_t n_tokens
        int32_t bos
        int32_t eos
        bint add_bos
        bint is_native
    void kollama_tokenizer_get_info(
        const kollama_tokenizer * tokenizer, kollama_tokenizer_info * info)
    bint kollama_token_is_eog(const kollama_tokenizer * tokenizer, int32_t token)
    bint kollama_token_piece(
        const kollama_tokenizer * tokenizer, int32_t token, const char ** piece,
        size_t * length)
    int32_t kollama_token_id(
        const kollama_tokenizer * tokenizer, const char * piece, size_t length)

    kollama_status kollama_token_bytes(
        const kollama_tokenizer * tokenizer, int32_t token, const char ** bytes, size_t * length,
        bint * special)

    ctypedef struct kollama_text:
        const char * data
        size_t size

    ctypedef struct kollama_encode_params:
        bint add_bos
        bint parse_special
    ctypedef enum kollama_text_encoding:
        KOLLAMA_BYTES
        KOLLAMA_UTF16
    ctypedef struct kollama_encoded_text:
        const char * data
        size_t size
        kollama_text_encoding encoding
    kollama_status kollama_encode(
        const kollama_tokenizer * tokenizer, const kollama_encoded_text * text,
        const kollama_encode_params * params, int32_t ** tokens, size_t * n_tokens,
        int32_t ** offsets)
    kollama_status kollama_encode_batch(
        const kollama_tokenizer * tokenizer, const kollama_encoded_text * texts, size_t n_texts,
        const kollama_encode_params * params, int32_t n_threads, int32_t ** tokens, size_t * ends)

    kollama_status kollama_decode(
        const kollama_tokenizer * tokenizer, const int32_t * tokens, size_t n_tokens,
        bint skip_special, kollama_text_encoding encoding, char ** memory, const char ** text,
        size_t * size)
    kollama_decoder * kollama_decoder_init(
        const kollama_tokenizer * tokenizer, bint skip_special)
    void kollama_decoder_free(kollama_decoder * decoder)
    kollama_status kollama_decoder_push(
        kollama_decoder * decoder, int32_t token, const char ** text, size_t * length)
    kollama_status kollama_decoder_flush(
        kollama_decoder * decoder, const char ** text, size_t * length)

    ctypedef enum kollama_draft:
        KOLLAMA_DRAFT_NONE
        KOLLAMA_DRAFT_LOOKUP
        KOLLAMA_DRAFT_MODEL
    ctypedef struct kollama_context_params:
        uint32_t n_ctx
        uint32_t n_batch
        uint32_t n_ubatch
        uint32_t n_seq_max
        int32_t n_threads
        bint swa_full
        int32_t flash_attn
        const char * type_k
        const char * type_v
        bint embeddings
        bint file_pools
        bint ranks
        kollama_draft draft
        kollama_model * draft_model
    kollama_status kollama_context_init(
        kollama_model * model, const kollama_context_params * params, kollama_context ** out)
    void kollama_context_free(kollama_context * ctx)

    kollama_status kollama_context_check_shift(kollama_context * ctx)

    ctypedef enum kollama_pooling:
        KOLLAMA_POOLING_NONE
        KOLLAMA_POOLING_MEAN
        KOLLAMA_POOLING_CLS
        KOLLAMA_POOLING_LAST
        KOLLAMA_POOLING_RANK
    kollama_status kollama_context_embed(
        kollama_context * ctx, const int32_t * tokens, const size_t * ends, size_t n_texts,
        kollama_pooling pooling, float * out, kollama_job ** job)
    kollama_status kollama_lora_load(kollama_model * model, const char * path, kollama_lora ** out)
    void kollama_lora_free(kollama_lora * lora)
    float kollama_lora_alpha(const kollama_lora * lora)
    size_t kollama_lora_n_kv(const kollama_lora * lora)
    const char * kollama_lora_key(const kollama_lora * lora, size_t index, size_t * length)
    const char * kollama_lora_value(const kollama_lora * lora, size_t index, size_t * length)
    kollama_status kollama_context_set_loras(
        kollama_context * ctx, kollama_lora * const * loras, const float * scales, size_t n_loras,
        kollama_job ** out)
    kollama_status kollama_context_set_control_vector(
        kollama_context * ctx, const float * data, size_t n_data, int32_t first, int32_t last,
        kollama_job ** out)
    kollama_status kollama_job_wait(kollama_job * job, int32_t timeout_ms)
    void kollama_job_cancel(kollama_job * job)
    void kollama_job_free(kollama_job * job)
    kollama_status kollama_sequence_init(kollama_context * ctx, kollama_sequence ** out)
    void kollama_sequence_free(kollama_sequence * seq)
    kollama_status kollama_sequence_append(
        kollama_sequence * seq, const int32_t * tokens, size_t n_tokens, kollama_job ** out)
    kollama_status kollama_sequence_rewind(
        kollama_sequence * seq, size_t n_keep, kollama_job ** out)
    kollama_status kollama_sequence_shift(
        kollama_sequence * seq, size_t n_keep, size_t n_discard, kollama_job ** out)
    kollama_status kollama_sequence_fork(
        kollama_sequence * seq, kollama_sequence * dst, kollama_job ** out)
    kollama_status kollama_sequence_save(
        kollama_sequence * seq, kollama_blob ** blob, kollama_job ** out)
    kollama_status kollama_sequence_load(
        kollama_sequence * seq, const void * blob, size_t size, kollama_job ** out)
    const void * kollama_blob_data(const kollama_blob * blob, size_t * size)
    void kollama_blob_free(kollama_blob * blob)
    kollama_status kollama_sequence_length(kollama_sequence * seq, size_t * n_tokens)
    kollama_status kollama_sequence_n_exact(kollama_sequence * seq, size_t * n_tokens)
    kollama_status kollama_sequence_tokens(
        kollama_sequence * seq, int32_t * tokens, size_t n_tokens)
    kollama_status kollama_sequence_logits(kollama_sequence * seq, kollama_row ** out)
    float * kollama_row_data(kollama_row * row)
    size_t kollama_row_size(const kollama_row * row)
    void kollama_row_retain(kollama_row * row)
    void kollama_row_release(kollama_row * row)

    ctypedef struct kollama_sampler_params:
        float temperature
        int32_t top_k
        float top_p
        float min_p
        uint32_t seed
    kollama_sampler * kollama_sampler_init(const kollama_sampler_params * params)
    void kollama_sampler_free(kollama_sampler * sampler)
    kollama_status kollama_sampler_clone(kollama_sampler * sampler, kollama_sampler ** out)

    ctypedef enum kollama_link_kind:
        KOLLAMA_LINK_PENALTIES
        KOLLAMA_LINK_TOP_N_SIGMA
        KOLLAMA_LINK_TOP_K
        KOLLAMA_LINK_TYPICAL_P
        KOLLAMA_LINK_TOP_P
        KOLLAMA_LINK_MIN_P
        KOLLAMA_LINK_XTC
        KOLLAMA_LINK_TEMPERATURE
        KOLLAMA_LINK_MIROSTAT
        KOLLAMA_LINK_MIROSTAT_V2
        KOLLAMA_LINK_ADAPTIVE_P
        KOLLAMA_LINK_INFILL
        KOLLAMA_LINK_DRAW

    ctypedef int (*kollama_callback)(
        void * user, size_t index, const int32_t * tokens, size_t n_tokens,
        kollama_row * row) noexcept
    kollama_status kollama_sampler_add(
        kollama_sampler * sampler, kollama_link_kind kind, const double * values, size_t n_values)
    kollama_status kollama_sampler_add_dry(
        kollama_sampler * sampler, const double * values, size_t n_values,
        const kollama_text * breakers, size_t n_breakers)
    kollama_status kollama_sampler_add_bias(
        kollama_sampler * sampler, const int32_t * ids, const kollama_text * texts,
        const float * biases, size_t count)
    kollama_status kollama_sampler_add_grammar(
        kollama_sampler * sampler, const kollama_text * grammar, const kollama_text * root)
    kollama_status kollama_sampler_add_callback(
        kollama_sampler * sampler, const kollama_text * name, size_t index)
    void kollama_sampler_set_callback(
        kollama_sampler * sampler, kollama_callback callback, void * user)
    ctypedef struct kollama_matcher_calls:
        int (*bind)(void * user, size_t index, const kollama_model * model) noexcept nogil
        int (*begin)(void * user, size_t index) noexcept nogil
        int (*allows)(void * user, size_t index, int32_t token) noexcept nogil
        int (*accept)(void * user, size_t index, int32_t token) noexcept nogil
        int (*mask)(void * user, size_t index, uint32_t * bits, size_t n_words) noexcept nogil
    kollama_status kollama_sampler_add_matcher(
        kollama_sampler * sampler, const kollama_text * name, size_t index)
    void kollama_sampler_set_matchers(
        kollama_sampler * sampler, const kollama_matcher_calls * calls, void * user)
    void kollama_sampler_choose_by_params(kollama_sampler * sampler)
    kollama_status kollama_sampler_sample(
        kollama_sampler * sampler, kollama_sequence * seq, int32_t * token)

    ctypedef struct kollama_generation_params:
        int64_t max_tokens
        bint ignore_eos
        int32_t ahead
        const char * const * stops
        const size_t * stop_lengths
        size_t n_stops
        size_t n_top
        size_t shift_at
        size_t n_keep
        kollama_watch * watch
        uint64_t key

    ctypedef enum kollama_finish:
        KOLLAMA_FINISH_NONE
        KOLLAMA_FINISH_STOP
        KOLLAMA_FINISH_LENGTH
        KOLLAMA_FINISH_EOS
        KOLLAMA_FINISH_CANCELLED

    ctypedef struct kollama_logprob:
        int32_t token
        float logprob

    ctypedef struct kollama_event:
        int32_t token
        float logprob
        const char * text
        size_t length
        kollama_finish finish
        const kollama_logprob * top
        size_t n_top

    ctypedef struct kollama_generation_stats:
        size_t n_prompt
        size_t n_reused
        size_t n_generated
        size_t n_drafted
        size_t n_accepted
        double prompt_seconds
        double generate_seconds
        kollama_finish finish
        char incomplete[4]
        size_t incomplete_length
    kollama_status kollama_generation_init(
        kollama_sequence * seq, kollama_sampler * sampler, const int32_t * prompt,
        size_t n_prompt, const kollama_generation_params * params, kollama_generation ** out)
    void kollama_generation_free(kollama_generation * gen)
    kollama_status kollama_generation_next(
        kollama_generation * gen, int32_t timeout_ms, kollama_event * event)
    kollama_status kollama_generation_send(
        kollama_generation * gen, kollama_sampler * sampler, int32_t token)
    void kollama_generation_request_cancel(kollama_generation * gen)
    void kollama_generation_cancel(kollama_generation * gen)
    void kollama_generation_get_stats(kollama_generation * gen, kollama_generation_stats * stats)

    ctypedef enum kollama_news:
        KOLLAMA_NEWS_NONE
        KOLLAMA_NEWS_TOKEN
        KOLLAMA_NEWS_CHOICE
        KOLLAMA_NEWS_END
    kollama_news kollama_generation_look(kollama_generation * gen, bint for_end)
    kollama_status kollama_watch_init(kollama_context * ctx, kollama_watch ** out)
    void kollama_watch_free(kollama_watch * watch)
    kollama_status kollama_watch_wait(
        kollama_watch * watch, int32_t timeout_ms, const uint64_t ** keys, size_t * n_keys)
    kollama_status kollama_watch_tell(kollama_watch * watch, uint64_t key)
    void kollama_watch_end(kollama_watch * watch)
