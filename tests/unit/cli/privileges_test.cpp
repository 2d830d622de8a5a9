// The rules of AT_SECURE for made-up files and processes. secure_mode_test.cpp asks the kernel.
// Run by unit_cli.
// Must not depend on who runs the test.
#include "cli/privileges.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

namespace shunt::cli {
namespace {

constexpr uint64_t kAll = (uint64_t{1} << 41) - 1;
constexpr uint64_t kNetRaw = uint64_t{1} << CAP_NET_RAW;

Credentials user(uid_t id) { return {id, id, id, id, id == 0 ? kAll : 0, 0, kAll, false}; }
FilePrivileges file(mode_t mode, uid_t owner) { return {mode, owner, owner, std::nullopt, false}; }
FilePrivileges with_capabilities(const FileCapabilities& capabilities) { return {0755, 0, 0, capabilities, false}; }

TEST(Privileges, OrdinaryFilesElevateNobody) {
  EXPECT_EQ(elevation(file(0755, 0), user(1000)), Elevation::none);
  EXPECT_EQ(elevation(file(0755, 0), user(0)), Elevation::none);
}

TEST(Privileges, SetuidCountsWhenItChangesTheUser) {
  EXPECT_EQ(elevation(file(04755, 0), user(1000)), Elevation::set_user_id);
  EXPECT_EQ(elevation(file(04755, 0), user(0)), Elevation::none);
  EXPECT_EQ(elevation(file(04755, 1000), user(1000)), Elevation::none);
  EXPECT_EQ(elevation(file(04755, 1000), user(0)), Elevation::set_user_id);
}

TEST(Privileges, SetgidNeedsGroupExecution) {
  EXPECT_EQ(elevation(file(02755, 0), user(1000)), Elevation::set_group_id);
  EXPECT_EQ(elevation(file(02745, 0), user(1000)), Elevation::none);
  EXPECT_EQ(elevation(file(02755, 1000), user(1000)), Elevation::none);
}

TEST(Privileges, NosuidMountsAndNoNewPrivilegesDisarmTheBits) {
  FilePrivileges on_nosuid = file(06755, 0);
  on_nosuid.mounted_nosuid = true;
  on_nosuid.capabilities = FileCapabilities{kNetRaw, 0, true};
  EXPECT_EQ(elevation(on_nosuid, user(1000)), Elevation::none);
  Credentials confined = user(1000);
  confined.no_new_privileges = true;
  EXPECT_EQ(elevation(file(06755, 0), confined), Elevation::none);
}

TEST(Privileges, IdsThatDifferBeforehandAreSecureToo) {
  Credentials process = user(1000);
  process.effective_user = 0;
  EXPECT_EQ(elevation(file(0755, 0), process), Elevation::ids_differ_already);
  EXPECT_EQ(elevation(file(04755, 1000), process), Elevation::none);
  process = user(1000);
  process.effective_group = 5;
  EXPECT_EQ(elevation(file(0755, 0), process), Elevation::ids_differ_already);
}

TEST(Privileges, CapabilitiesCountForUsersNotForRoot) {
  EXPECT_EQ(elevation(with_capabilities({kNetRaw, 0, true}), user(1000)), Elevation::file_capabilities);
  EXPECT_EQ(elevation(with_capabilities({kNetRaw, 0, false}), user(1000)), Elevation::file_capabilities);
  EXPECT_EQ(elevation(with_capabilities({kNetRaw, 0, true}), user(0)), Elevation::none);
}

TEST(Privileges, CapabilitiesThatCannotBeGainedDoNotCount) {
  Credentials bounded = user(1000);
  bounded.bounding = kAll & ~kNetRaw;
  EXPECT_EQ(elevation(with_capabilities({kNetRaw, 0, false}), bounded), Elevation::none);
  EXPECT_EQ(elevation(with_capabilities({0, kNetRaw, false}), user(1000)), Elevation::none);
  Credentials inheriting = user(1000);
  inheriting.inheritable = kNetRaw;
  EXPECT_EQ(elevation(with_capabilities({0, kNetRaw, false}), inheriting), Elevation::file_capabilities);
  Credentials confined = user(1000);
  confined.no_new_privileges = true;
  EXPECT_EQ(elevation(with_capabilities({kNetRaw, 0, false}), confined), Elevation::none);
}

TEST(Privileges, AttributeIsReadInItsRevisions) {
  const uint32_t second[] = {VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, 1, 2, 4, 8};
  const auto capabilities = parse_capabilities(second, sizeof second);
  ASSERT_TRUE(capabilities);
  EXPECT_EQ(capabilities->permitted, uint64_t{4} << 32 | 1);
  EXPECT_EQ(capabilities->inheritable, uint64_t{8} << 32 | 2);
  EXPECT_TRUE(capabilities->effective);
  const uint32_t first[] = {VFS_CAP_REVISION_1, 1, 2};
  ASSERT_TRUE(parse_capabilities(first, sizeof first));
  EXPECT_FALSE(parse_capabilities(first, sizeof first)->effective);
}

TEST(Privileges, AttributeOfAnotherNamespaceOrLengthIsIgnored) {
  const uint32_t third[] = {VFS_CAP_REVISION_3 | VFS_CAP_FLAGS_EFFECTIVE, 1, 2, 4, 8, 1000};
  EXPECT_FALSE(parse_capabilities(third, sizeof third));
  const uint32_t second[] = {VFS_CAP_REVISION_2, 1, 2, 4, 8};
  for (size_t bytes = 0; bytes < sizeof second; ++bytes) EXPECT_FALSE(parse_capabilities(second, bytes)) << bytes;
}

TEST(Privileges, OwnFilesAndCredentialsAreRead) {
  const TemporaryDirectory directory;
  const auto privileges = read_privileges(directory.write("p", "x", 04711));
  ASSERT_TRUE(privileges);
  EXPECT_EQ(privileges->mode & 07777, 04711u);
  EXPECT_EQ(privileges->owner, geteuid());
  EXPECT_FALSE(privileges->capabilities);
  EXPECT_FALSE(read_privileges(directory.path() / "none"));
  const Credentials own = own_credentials();
  EXPECT_EQ(own.real_user, getuid());
  EXPECT_EQ(own.effective_group, getegid());
}

}  // namespace
}  // namespace shunt::cli
