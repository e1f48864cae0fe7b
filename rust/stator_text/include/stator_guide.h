/* C ABI of the crate stator_text: guides, which say what text may come next. Used by
 * stator/text/guides alone.
 *
 * No function keeps a pointer it was given, and none throws. Texts are UTF-8 with a length. Where a
 * status is not STATOR_GUIDE_OK, `*text` says why; free it with stator_text_free(). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "stator_text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A vocabulary made ready; immutable, usable from many threads at once. */
typedef struct StatorGuides StatorGuides;
/* A compiled constraint at one point of its text; one thread at a time. */
typedef struct StatorGuide StatorGuide;

typedef enum StatorGuideStatus {
    STATOR_GUIDE_OK = 0,
    STATOR_GUIDE_INVALID = 1,     /* the constraint can't be compiled */
    STATOR_GUIDE_TOO_COMPLEX = 2, /* a limit of time or memory was met */
    STATOR_GUIDE_REJECTED = 3,    /* the token or text does not fit; the guide is where it was */
    STATOR_GUIDE_STUCK = 4,       /* no token fits, and the text may not end */
    STATOR_GUIDE_PANIC = 5        /* a bug in this crate or below it; the guide is of no more use */
} StatorGuideStatus;

/* `vocabulary` is the bytes of all tokens, one behind the other; token i ends at ends[i]. kinds[i]:
 * 0 text, 1 special (its bytes are its name), 2 ends a text (also special), 3 never generated. */
StatorGuideStatus stator_guides_new(const char* vocabulary, const uint64_t* ends,
                                    const uint8_t* kinds, uint32_t tokens, StatorGuides** guides,
                                    StatorText* text);

/* `kind` is protocol::OutputConstraint::Kind. Takes up to some 100 ms, on a thread that lives for
 * the call. */
StatorGuideStatus stator_guide_compile(const StatorGuides* guides, uint32_t kind,
                                       const char* constraint, size_t constraint_size,
                                       StatorGuide** guide, StatorText* text);

/* At the same point; copies share what they learn of the grammar. Null where it failed. */
StatorGuide* stator_guide_clone(const StatorGuide* guide);

/* Bit t % 32 of bits[t / 32] tells whether token t may come next. All clear where the text is
 * complete. */
StatorGuideStatus stator_guide_mask(StatorGuide* guide, uint32_t* bits, size_t words,
                                    StatorText* text);

/* The text goes on with a token that does not end it. */
StatorGuideStatus stator_guide_accept(StatorGuide* guide, uint32_t token, StatorText* text);

/* Whether the text may go on with these bytes; with `commit` it does. */
StatorGuideStatus stator_guide_text(StatorGuide* guide, const char* data, size_t size, int commit,
                                    StatorText* text);

/* 0: the text must go on; 1: it may end here; 2: it is complete, nothing can follow. */
int stator_guide_state(StatorGuide* guide);

void stator_guide_free(StatorGuide* guide);
/* Guides made of it may outlive it. */
void stator_guides_free(StatorGuides* guides);

#ifdef __cplusplus
}
#endif
