// Checks for the two roles: the first that fails writes one line to standard error and ends the process.
// Any thread, any child, signal handlers included. gtest lives in the runner, not here.
#pragma once

#include <cerrno>
#include <string>
#include <type_traits>
#include <utility>

namespace shunt::behaviour {

[[noreturn]] void fail(const char* file, int line, const std::string& what);

// Named in the message of a check that fails from here on, in this process: which row of a table was tried.
void about(const std::string& row);
std::string current_row();

template <class T>
std::string shown(const T& value) {
  if constexpr (std::is_convertible_v<T, std::string>) {
    const std::string text = value;
    return text.size() > 80 ? "\"" + text.substr(0, 80) + "\"..." : "\"" + text + "\"";
  } else {
    return std::to_string(value);
  }
}

template <class A, class B>
bool same(const A& a, const B& b) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, bool> &&
                !std::is_same_v<A, char>) {
    return std::cmp_equal(a, b);
  } else {
    return a == b;
  }
}

template <class A, class B>
void check_equal(const char* file, int line, const char* text, const A& got, const B& wanted) {
  const int error = errno;
  if (!same(got, wanted)) {
    fail(
        file, line,
        std::string(text) + ": got " + shown(got) + ", expected " + shown(wanted) + ", errno " + std::to_string(error));
  }
  errno = error;
}

}  // namespace shunt::behaviour

#define CHECK(condition) \
  ((condition) ? (void)0 : ::shunt::behaviour::fail(__FILE__, __LINE__, #condition ": errno " + std::to_string(errno)))
#define CHECK_EQ(got, wanted) ::shunt::behaviour::check_equal(__FILE__, __LINE__, #got, got, wanted)
// `call` returns -1 and sets errno to `code`.
#define CHECK_ERRNO(call, code)                                                               \
  do {                                                                                        \
    errno = 0;                                                                                \
    ::shunt::behaviour::check_equal(__FILE__, __LINE__, #call, static_cast<long>(call), -1L); \
    ::shunt::behaviour::check_equal(__FILE__, __LINE__, #call ": errno", errno, code);        \
  } while (false)
