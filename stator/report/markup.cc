#include "stator/report/markup.h"

#include "stator/codec/utf8.h"

namespace stator::report {

std::string escaped(std::string_view text) {
    std::string mended;
    codec::utf8_append_lossy(mended, text);
    std::string out;
    out.reserve(mended.size());
    for (const char c : mended) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            case '\'':
                out += "&#39;";
                break;
            case '\n':
            case '\t':
                out += ' ';
                break;
            default:
                if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
                    out += "\xef\xbf\xbd";
                } else {
                    out += c;
                }
        }
    }
    return out;
}

}  // namespace stator::report
