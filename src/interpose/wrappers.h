// Our own wrappers, as callable from one another: shunt_NAME is what we export as NAME.
#pragma once

#include "interpose/next.h"

namespace shunt::interpose {
template <typename T>
using Signature = T;
}  // namespace shunt::interpose

extern "C" {
#define SHUNT_SYMBOL(name, number, words, ...) \
  [[gnu::visibility("default")]] extern shunt::interpose::Signature<__VA_ARGS__> shunt_##name __asm__(#name);
#define Handler shunt::interpose::Handler
#include "interpose/symbols.def"
#undef Handler
}
