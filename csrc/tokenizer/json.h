// A strict pull parser for JSON: the caller asks for what it expects, and what is not there is an
// error that names the byte. Nothing is built that the caller does not keep.

#pragma once

#include "errors.h"

#include <string_view>
#include <vector>

namespace kollama {

class json_reader {
  public:
    enum class kind { object, array, string, number, boolean, null };

    // text must outlive the reader. Throws KOLLAMA_ERROR_FORMAT, as all functions here.
    explicit json_reader(std::string_view text);

    kind peek();

    // begin_object(); while (next_key(key)) { one value }
    void begin_object();
    bool next_key(std::string & key);
    // begin_array(); while (next_item()) { one value }
    void begin_array();
    bool next_item();

    void    string(std::string & out); // appends
    int64_t integer(int64_t low, int64_t high);
    double  number();
    bool    boolean();
    bool    take_null(); // consumes a null where one stands
    void    skip();      // any value
    void    end();       // nothing but space may follow

    [[noreturn]] void fail(const std::string & reason) const;

  private:
    void space();
    char need();
    void expect(char c);
    void word(const char * text);
    std::string number_text();
    void escape(std::string & out);
    uint32_t hex4();
    void open(char c);
    bool next(char close);

    std::string_view  text_;
    size_t            at_ = 0;
    std::vector<char> begun_; // of each open object or array: whether it has had an element
};


} // namespace kollama
