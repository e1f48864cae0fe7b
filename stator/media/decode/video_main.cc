// stator-video-decode: frames of videos in a process that can do nothing else.
#include "stator/media/decode/serve.h"
#include "stator/media/decode/video.h"

int main() {
    using namespace stator::media::helper;
    return serve(kDecodesVideo, decode_video);
}
