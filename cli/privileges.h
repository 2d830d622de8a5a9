// Will the kernel start this file in secure mode (AT_SECURE), where the loader ignores LD_PRELOAD?
// Called by program inspection and tests. The decision is pure; what it decides on is read by the two readers below.
// Must not guess from the mode bits alone: root running a setuid-root program is not in secure mode.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>

namespace shunt::cli {

// The starting process; capability sets as bit masks.
struct Credentials {
  uid_t real_user;
  uid_t effective_user;
  gid_t real_group;
  gid_t effective_group;
  uint64_t permitted;
  uint64_t inheritable;
  uint64_t bounding;
  bool no_new_privileges;
};

struct FileCapabilities {
  uint64_t permitted;
  uint64_t inheritable;
  bool effective;
};

// The file to be started.
struct FilePrivileges {
  mode_t mode;
  uid_t owner;
  gid_t group;
  std::optional<FileCapabilities> capabilities;
  bool mounted_nosuid;
};

enum class Elevation { none, set_user_id, set_group_id, file_capabilities, ids_differ_already };

Elevation elevation(const FilePrivileges& file, const Credentials& process);

Credentials own_credentials();

// None when the file cannot be examined.
std::optional<FilePrivileges> read_privileges(const std::filesystem::path& path);

// The value of the extended attribute security.capability. None when the kernel would not honour it here.
std::optional<FileCapabilities> parse_capabilities(const void* attribute, size_t bytes);

}  // namespace shunt::cli
