// A program without the library's loader: the image that carries on a stream (static where the build allows it).
#include "life.h"

int main(int argc, char** argv) { return shunt::behaviour::run_image(argc, argv).value_or(2); }
