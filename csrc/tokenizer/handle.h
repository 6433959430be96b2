#pragma once

#include "internal.h"
#include "tokenizer/tokenizer.h"

struct kollama_tokenizer : kollama::counted<KOLLAMA_HANDLE_TOKENIZER> {
    std::shared_ptr<const kollama::tokenizer> tokenizer;
};
