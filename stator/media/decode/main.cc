// stator-media-decode: pictures to pixels in a process that can do nothing else.
#include "stator/media/decode/serve.h"

int main() {
    using namespace stator::media::helper;
    return serve(kDecodesImages, decode_image);
}
