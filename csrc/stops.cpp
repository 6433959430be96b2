#include "stops.h"

#include <algorithm>

namespace kollama {

void stop_matcher::add(std::string_view text) {
    pattern p{ std::string(text), std::vector<size_t>(text.size() + 1, 0) };
    for (size_t i = 1, border = 0; i < text.size(); i++) {
        while (border > 0 && text[i] != text[border]) {
            border = p.fallback[border];
        }
        border += text[i] == text[border];
        p.fallback[i + 1] = border;
    }
    patterns_.push_back(std::move(p));
}

bool stop_matcher::push(std::string_view bytes, std::string & out) {
    for (const char byte : bytes) {
        held_ += byte;
        size_t keep = 0, complete = 0;
        for (pattern & p : patterns_) {
            while (p.matched > 0 && byte != p.text[p.matched]) {
                p.matched = p.fallback[p.matched];
            }
            p.matched += byte == p.text[p.matched];
            if (p.matched == p.text.size()) {
                complete = std::max(complete, p.matched);
            }
            keep = std::max(keep, p.matched);
        }
        if (complete > 0) {
            out.append(held_, 0, held_.size() - complete);
            held_.clear();
            return true;
        }
        out.append(held_, 0, held_.size() - keep);
        held_.erase(0, held_.size() - keep);
    }
    return false;
}

void stop_matcher::reset() {
    for (pattern & p : patterns_) {
        p.matched = 0;
    }
    held_.clear();
}

void stop_matcher::flush(std::string & out) {
    out += held_;
    held_.clear();
}

} // namespace kollama
