/* C ABI of the crate stator_text: chat templates, used by stator/text, and tokenizers, used by
 * stator/model.
 *
 * No function keeps a pointer it was given, and none throws. Texts are UTF-8 with a length, not
 * NUL-terminated; an empty one may have a null pointer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A compiled template; immutable, usable from many threads at once. */
typedef struct StatorTemplate StatorTemplate;

/* A text owned by the crate; give it back with stator_text_free(). `line` is the template's line an
 * error is about, counted from 1; 0 where it is not known and for outputs. */
typedef struct StatorText {
    char* data;
    size_t size;
    size_t capacity;
    uint32_t line;
} StatorText;

typedef struct StatorTemplateOptions {
    const char* bos_token;
    size_t bos_token_size;
    const char* eos_token;
    size_t eos_token_size;
    uint64_t max_steps; /* one step is one instruction or 64 bytes of data made */
    uint64_t max_output_bytes;
} StatorTemplateOptions;

typedef enum StatorTemplateStatus {
    STATOR_TEMPLATE_OK = 0,
    STATOR_TEMPLATE_SYNTAX = 1, /* the template does not compile */
    STATOR_TEMPLATE_RAISED =
        2, /* the template called raise_exception(); the text is its argument */
    STATOR_TEMPLATE_UNDEFINED = 3, /* something was used that the context does not have */
    STATOR_TEMPLATE_OPERATION = 4, /* values of the wrong kind, unknown methods, … */
    STATOR_TEMPLATE_STEPS = 5,     /* max_steps reached, or too deep a recursion */
    STATOR_TEMPLATE_OUTPUT = 6,    /* max_output_bytes reached */
    STATOR_TEMPLATE_CONTEXT = 7,   /* the context is not a JSON object */
    STATOR_TEMPLATE_PANIC = 8      /* a bug in this crate or below it; the template stays usable */
} StatorTemplateStatus;

/* On STATOR_TEMPLATE_OK `*compiled` is the template (free it with stator_template_free) and `*text`
 * is empty; otherwise
 * `*text` is the error's message. */
StatorTemplateStatus stator_template_compile(const char* source, size_t source_size,
                                             const StatorTemplateOptions* options,
                                             StatorTemplate** compiled, StatorText* text);

/* A text of the caller's. */
typedef struct StatorTextView {
    const char* data;
    size_t size;
} StatorTextView;

/* Renders with the members of a JSON object as variables. Long texts need not be written as JSON
 * and read again: a string that is U+FDD0 and a decimal number stands for that one of the `texts`.
 * `unix_seconds` is what strftime_now() shows, in UTC; without it (null) that function is
 * undefined. The output goes piece by piece to `append(to, …)`, which must not throw; on an error
 * what came is worth nothing, and `*message` says what went wrong. */
StatorTemplateStatus stator_template_render(const StatorTemplate* compiled, const char* context,
                                            size_t context_size, const StatorTextView* texts,
                                            size_t text_count, const int64_t* unix_seconds,
                                            void (*append)(void* to, const char* data, size_t size),
                                            void* to, StatorText* message);

void stator_template_free(StatorTemplate* compiled);
void stator_text_free(StatorText text);

/* A tokenizer.json; immutable, usable from many threads at once. */
typedef struct StatorTokenizer StatorTokenizer;

/* Where the texts of a token lie in StatorTokenizerFacts.text. */
typedef struct StatorTokenEntry {
    uint32_t bytes_at; /* what it stands for inside a text; empty for special tokens */
    uint32_t bytes_size;
    uint32_t spelling_at;
    uint32_t spelling_size;
    uint32_t first_at; /* what it stands for where it begins a text */
    uint32_t first_size;
    bool control; /* a special token */
    bool known;   /* false: a hole in the vocabulary */
} StatorTokenEntry;

/* All of it lies in the tokenizer. */
typedef struct StatorTokenizerFacts {
    const StatorTokenEntry* entries; /* by id */
    size_t entry_count;
    const char* text;
    size_t text_size;
    const uint32_t* lead; /* what the post-processor's template puts in front of a text */
    size_t lead_count;
    const char* engine; /* "fastokens", "tokenizers-next" or "tokenizers" */
    size_t engine_size;
    const char* note; /* why not a faster one; empty for the fastest */
    size_t note_size;
    size_t added_count;
} StatorTokenizerFacts;

typedef struct StatorAddedToken {
    const char* text;
    size_t text_size;
    uint32_t id;
    bool special;
} StatorAddedToken;

/* 0, or 1 with the error's message in `*message`: the file is not used. Takes up to a second for
 * large vocabularies. */
int32_t stator_tokenizer_load(const char* json, size_t json_size, StatorTokenizer** tokenizer,
                              StatorText* message);
void stator_tokenizer_facts(const StatorTokenizer* tokenizer, StatorTokenizerFacts* facts);
/* `index` < added_count; in order of ids. */
void stator_tokenizer_added(const StatorTokenizer* tokenizer, size_t index,
                            StatorAddedToken* token);

/* Encodes with added tokens recognised and nothing put in front by the post-processor. Hands
 * the ids to `take`, which copies them, in one or two pieces. `continues`: the text goes on where
 * another ended. 0, or 1 with a message. */
int32_t stator_tokenizer_encode(const StatorTokenizer* tokenizer, const char* text,
                                size_t text_size, bool continues,
                                void (*take)(void* context, const uint32_t* ids, size_t count),
                                void* context, StatorText* message);
void stator_tokenizer_free(StatorTokenizer* tokenizer);

#ifdef __cplusplus
}
#endif
