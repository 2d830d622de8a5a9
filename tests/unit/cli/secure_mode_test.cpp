// The kernel's own AT_SECURE against what the command says, for every sort of elevation.
// Run by unit_cli; needs root, to make the files and to become other users.
// Must not leave elevated files behind: they live in a directory that goes away.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "process.h"
#include "support.h"

namespace shunt::cli {
namespace {

constexpr uid_t kUser = 65534;

enum class Starter { root, user, user_without_new_privileges, user_with_other_real_id };
enum class Capabilities { none, permitted, effective, inheritable };

struct Case {
  const char* name;
  Starter starter;
  mode_t mode;
  uid_t owner;
  Capabilities capabilities;
  bool secure;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

void become(Starter starter) {
  if (starter == Starter::root) return;
  const uid_t real = starter == Starter::user_with_other_real_id ? kUser - 1 : kUser;
  if (setgid(kUser) != 0 || setresuid(real, kUser, kUser) != 0) _exit(98);
  if (starter == Starter::user_without_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(97);
}

bool set_capabilities(const std::filesystem::path& file, Capabilities capabilities) {
  constexpr uint32_t kNetRaw = 1u << CAP_NET_RAW;
  uint32_t words[] = {VFS_CAP_REVISION_2, 0, 0, 0, 0};
  switch (capabilities) {
    case Capabilities::none:
      return true;
    case Capabilities::permitted:
      words[1] = kNetRaw;
      break;
    case Capabilities::effective:
      words[0] |= VFS_CAP_FLAGS_EFFECTIVE;
      words[1] = kNetRaw;
      break;
    case Capabilities::inheritable:
      words[2] = kNetRaw;
      break;
  }
  return setxattr(file.c_str(), "security.capability", words, sizeof words, 0) == 0;
}

class SecureMode : public testing::TestWithParam<Case> {};

TEST_P(SecureMode, IsForetold) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const TemporaryDirectory directory;
  const auto copy = [&](const char* from, const char* name) {
    std::filesystem::copy_file(from, directory.path() / name);
    return (directory.path() / name).string();
  };
  // Copies, because another user may not reach the build directory.
  const std::string command = copy(SHUNT_COMMAND, "shunt");
  const std::string library = copy(PRELOAD_MARKER, "marker.so");
  const std::string program = copy(WITNESS, "witness");
  ASSERT_EQ(chmod(directory.path().c_str(), 0755), 0);
  ASSERT_EQ(chown(program.c_str(), GetParam().owner, GetParam().owner), 0);
  ASSERT_EQ(chmod(program.c_str(), GetParam().mode), 0);  // after chown, which clears the bits
  if (!set_capabilities(program, GetParam().capabilities)) GTEST_SKIP() << "the file system keeps no capabilities";

  const Outcome outcome = run_process({.command = {command, "run", program},
                                       .environment = {"SHUNT_LIBRARY=" + library},
                                       .before_exec = [] { become(GetParam().starter); }});
  ASSERT_EQ(outcome.exit_status, 0) << outcome.errors;
  const auto says = [](const std::string& text, const char* part) { return text.find(part) != text.npos; };
  EXPECT_EQ(says(outcome.output, "secure=1"), GetParam().secure) << "this kernel has other rules\n" << outcome.output;
  EXPECT_EQ(says(outcome.errors, "runs without Shunt"), says(outcome.output, "secure=1")) << outcome.errors;
  EXPECT_EQ(says(outcome.output, "PRELOAD_MARKER=loaded"), !GetParam().secure) << outcome.output;
  EXPECT_EQ(says(outcome.output, "LD_PRELOAD="), !GetParam().secure) << outcome.output;
}

constexpr Capabilities kNone = Capabilities::none;
INSTANTIATE_TEST_SUITE_P(
    Kernel, SecureMode,
    testing::Values(
        Case{"UserRunsOrdinary", Starter::user, 0755, 0, kNone, false},
        Case{"UserRunsUnreadable", Starter::user, 0711, 0, kNone, false},
        Case{"UserRunsSetuidRoot", Starter::user, 04755, 0, kNone, true},
        Case{"UserRunsUnreadableSetuidRoot", Starter::user, 04711, 0, kNone, true},
        Case{"UserRunsSetuidSelf", Starter::user, 04755, kUser, kNone, false},
        Case{"UserRunsSetgidRoot", Starter::user, 02755, 0, kNone, true},
        Case{"UserRunsMandatoryLocking", Starter::user, 02745, 0, kNone, false},
        Case{"RootRunsSetuidRoot", Starter::root, 04755, 0, kNone, false},
        Case{"RootRunsSetuidUser", Starter::root, 04755, kUser, kNone, true},
        Case{"RootRunsEffective", Starter::root, 0755, 0, Capabilities::effective, false},
        Case{"UserRunsEffective", Starter::user, 0755, 0, Capabilities::effective, true},
        Case{"UserRunsPermitted", Starter::user, 0755, 0, Capabilities::permitted, true},
        Case{"UserRunsInheritable", Starter::user, 0755, 0, Capabilities::inheritable, false},
        Case{"DifferingIdsRunOrdinary", Starter::user_with_other_real_id, 0755, 0, kNone, true},
        Case{"ConfinedRunsSetuidRoot", Starter::user_without_new_privileges, 04755, 0, kNone, false},
        Case{"ConfinedRunsPermitted", Starter::user_without_new_privileges, 0755, 0, Capabilities::permitted, false},
        Case{"ConfinedRunsEffective", Starter::user_without_new_privileges, 0755, 0, Capabilities::effective, true}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace shunt::cli
