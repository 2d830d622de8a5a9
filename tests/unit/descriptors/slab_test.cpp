// Connections that appear beside a fork: those that the child has in its table must be counted as shared.
#include "descriptors/slab.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace shunt {
namespace {

using std::chrono::milliseconds;

TEST(Slab, a_connection_that_is_there_before_a_fork_is_shared) {
  Connection* connection = allocate_connection();
  lock_slabs_before_fork();
  EXPECT_EQ(connection->side->holders.load(), 2u);
  EXPECT_TRUE(connection->shared_over_fork.load());
  unlock_slabs_in_parent(Born::yes);
}

// Else it would be in the child's table, and neither process would know of the other.
TEST(Slab, no_connection_appears_in_another_thread_while_a_fork_is_under_way) {
  lock_slabs_before_fork();
  std::atomic<Connection*> connection{nullptr};
  std::thread other([&] { connection = allocate_connection(); });
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(connection.load(), nullptr);
  unlock_slabs_in_parent(Born::yes);
  other.join();
  ASSERT_NE(connection.load(), nullptr);
  EXPECT_EQ(connection.load()->side->holders.load(), 1u);
  EXPECT_FALSE(connection.load()->shared_over_fork.load());
}

TEST(Slab, a_fork_that_makes_no_child_shares_nothing) {
  Connection* connection = allocate_connection();
  lock_slabs_before_fork();
  unlock_slabs_in_parent(Born::no);
  EXPECT_EQ(connection->side->holders.load(), 1u);
}

}  // namespace
}  // namespace shunt
