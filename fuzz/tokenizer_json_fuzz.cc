// tokenizer.json files that are damaged: loading them ends with an error or with a tokenizer that
// keeps its promises. The first byte picks a small good file (0: none, the input is the file); of
// the rest, each three bytes replace, put in or take out one byte of it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "stator/codec/utf8.h"
#include "stator/model/hf_tokenizer.h"
#include "stator/text/detokenizer.h"

namespace {

using stator::model::HfTokenizer;
using stator::text::SpecialTokens;
using stator::text::TokenId;

constexpr std::string_view kFiles[] = {
    R"({"version":"1.0","added_tokens":[{"id":6,"content":"<s>","single_word":false,"lstrip":false,)"
    R"("rstrip":false,"normalized":false,"special":true}],"normalizer":null,"pre_tokenizer":)"
    R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":" ?\\p{L}+|."},)"
    R"("behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,)"
    R"("trim_offsets":true,"use_regex":false}]},"post_processor":null,"decoder":{"type":)"
    R"("ByteLevel"},"model":{"type":"BPE","dropout":null,"unk_token":null,"fuse_unk":false,)"
    R"("byte_fallback":false,"vocab":{"a":0,"b":1,"Ġ":2,"ab":3,"Ġa":4,"Ã":5},"merges":["a b","Ġ a"]}})",
    R"({"version":"1.0","added_tokens":[{"id":0,"content":"<unk>","special":true,"normalized":false,)"
    R"("single_word":false,"lstrip":true,"rstrip":true}],"normalizer":{"type":"Prepend","prepend":"▁"},)"
    R"("pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},)"
    R"("decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
    R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},)"
    R"("model":{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0.0],["▁a",-1.5],)"
    R"(["a",-2.0],["<0x62>",-9.0]]}})",
    R"({"added_tokens":[],"normalizer":{"type":"BertNormalizer","clean_text":true,"lowercase":true,)"
    R"("handle_chinese_chars":true,"strip_accents":null},"pre_tokenizer":{"type":"BertPreTokenizer"},)"
    R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"a","type_id":0}},)"
    R"({"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"a":{"id":"a","ids":[1],)"
    R"("tokens":["a"]}}},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},"model":{"type":)"
    R"("WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,)"
    R"("vocab":{"[UNK]":0,"a":1,"##b":2}}})",
};

std::string damaged(std::string_view file, const std::uint8_t* data, std::size_t size) {
    std::string out(file);
    for (std::size_t i = 0; i + 3 <= size && !out.empty(); i += 3) {
        const std::size_t at =
            (data[i] | (static_cast<std::size_t>(data[i + 1] & 0x3F) << 8)) % out.size();
        switch (data[i + 1] >> 6) {
            case 0:
                out[at] = static_cast<char>(data[i + 2]);
                break;
            case 1:
                out.insert(at, 1, static_cast<char>(data[i + 2]));
                break;
            case 2:
                out.erase(at, data[i + 2]);
                break;
            default:
                out.insert(at, out.substr(at, data[i + 2]));
                break;
        }
    }
    return out;
}

void check(bool good) {
    if (!good) std::abort();
}

void use(const HfTokenizer& tokenizer) {
    const std::string text = "<s>ab a<unk>[UNK] é\n\xE2\x96\x81 <0x62> bab";
    for (const auto special : {SpecialTokens::kParse, SpecialTokens::kAsText}) {
        std::vector<TokenId> ids;
        const bool encoded = tokenizer.encode(text, special, true, ids).has_value() &&
                             tokenizer.encode_more(text, special, ids).has_value();
        if (!encoded) continue;
        stator::text::Detokenizer detokenizer(tokenizer, {"b "},
                                              stator::text::ControlTokens::kHidden, true);
        std::string out;
        for (const TokenId id : ids) {
            check(id < tokenizer.vocab_size());
            if (detokenizer.push(id, out)) break;
        }
        detokenizer.finish(out);
        check(stator::codec::utf8_valid(out));
    }
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
        check(!tokenizer.is_control(id) || tokenizer.bytes(id).empty());
        check(stator::codec::utf8_valid(tokenizer.spelling(id)));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::size_t pick = data[0] % (std::size(kFiles) + 1);
    const std::string file = pick == 0
                                 ? std::string(reinterpret_cast<const char*>(data + 1), size - 1)
                                 : damaged(kFiles[pick - 1], data + 1, size - 1);
    const auto loaded = HfTokenizer::load(file, {});
    if (loaded) {
        use(**loaded);
    } else {
        check(!loaded.error().message.empty());
    }
    return 0;
}
