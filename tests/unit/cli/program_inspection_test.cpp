// Verdicts on programs and scripts of every sort, made of headers alone.
// Run by unit_cli.
// Must not execute them.
#include "cli/program_inspection.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "support.h"

namespace shunt::cli {
namespace {

class ProgramInspection : public testing::Test {
 protected:
  static constexpr ElfKind kKind{ELFCLASS64, ELFDATA2LSB, EM_X86_64};

  // A loader only has to exist and to have the right name.
  std::string loader(const std::string& name) { return directory_.write(name, make_elf({})); }
  std::string good(const std::string& name) {
    return directory_.write(name, make_elf({.loader = loader("ld-linux-x86-64.so.2")}));
  }
  std::string musl(const std::string& name) {
    return directory_.write(name, make_elf({.loader = loader("ld-musl-x86_64.so.1")}));
  }
  std::string statically_linked(const std::string& name) { return directory_.write(name, make_elf({})); }
  std::string script(const std::string& name, const std::string& line) {
    return directory_.write(name, "#!" + line + "\n");
  }

  Verdict verdict(const std::string& program) { return inspect(program).verdict; }
  Inspection inspect(const std::string& program) { return inspect_program(program, {kKind, credentials_}); }

  TemporaryDirectory directory_;
  // The owner of the test's files, so that only what a test does to them elevates.
  Credentials credentials_{getuid(), getuid(), getgid(), getgid(), 0, 0, 0, false};
};

TEST_F(ProgramInspection, DynamicGlibcProgramRunsWithShunt) {
  EXPECT_EQ(verdict(good("p")), Verdict::with_shunt);
  EXPECT_EQ(inspect(good("p")).reason, "");
  EXPECT_EQ(inspect_program("/proc/self/exe", own_host()).verdict, Verdict::with_shunt);
}

TEST_F(ProgramInspection, StaticProgramDoesNot) {
  EXPECT_EQ(verdict(statically_linked("p")), Verdict::statically_linked);
  EXPECT_EQ(inspect_program(WITNESS_STATIC, own_host()).verdict, Verdict::statically_linked);
}

TEST_F(ProgramInspection, LoaderItselfObeysPreload) {
  EXPECT_EQ(verdict(loader("ld-linux-x86-64.so.2")), Verdict::with_shunt);
}

TEST_F(ProgramInspection, OtherLibcDoesNot) {
  const Inspection inspection = inspect(musl("p"));
  EXPECT_EQ(inspection.verdict, Verdict::other_libc);
  EXPECT_NE(inspection.reason.find("ld-musl-x86_64.so.1"), std::string::npos);
}

TEST_F(ProgramInspection, OtherMachineOrClassDoesNot) {
  const std::string arm =
      directory_.write("a", make_elf({.loader = "/lib/ld-linux-aarch64.so.1", .machine = EM_AARCH64}));
  EXPECT_EQ(verdict(arm), Verdict::other_machine);
  EXPECT_EQ(inspect(arm).reason, "it is a 64-bit aarch64 program, and Shunt is 64-bit x86-64");
  EXPECT_EQ(verdict(directory_.write("b", make_elf({.machine = EM_386, .elf_class = ELFCLASS32}))),
            Verdict::other_machine);
  // x32: the same machine, another class.
  EXPECT_EQ(verdict(directory_.write("c", make_elf({.elf_class = ELFCLASS32}))), Verdict::other_machine);
}

TEST_F(ProgramInspection, MissingLoaderIsNamed) {
  const Inspection inspection = inspect(directory_.write("p", make_elf({.loader = "/none/ld-linux-x86-64.so.2"})));
  EXPECT_EQ(inspection.verdict, Verdict::cannot_start);
  EXPECT_EQ(inspection.reason, "it needs /none/ld-linux-x86-64.so.2, which does not exist");
}

TEST_F(ProgramInspection, ElevatedProgramDoesNot) {
  const std::string program = good("p");
  ASSERT_EQ(chmod(program.c_str(), 04755), 0);
  EXPECT_EQ(verdict(program), Verdict::with_shunt);  // set to the user who starts it
  credentials_.real_user = credentials_.effective_user = getuid() + 1;
  EXPECT_EQ(verdict(program), Verdict::elevated);
  ASSERT_EQ(chmod(program.c_str(), 0755), 0);
  EXPECT_EQ(verdict(program), Verdict::with_shunt);
}

TEST_F(ProgramInspection, ScriptIsWhatItsInterpreterIs) {
  EXPECT_EQ(verdict(script("s1", good("p") + " -e")), Verdict::with_shunt);
  const std::string interpreter = statically_linked("q");
  const Inspection inspection = inspect(script("s2", interpreter));
  EXPECT_EQ(inspection.verdict, Verdict::statically_linked);
  EXPECT_EQ(inspection.reason.rfind("its interpreter " + interpreter + " is statically linked", 0), 0u);
  EXPECT_EQ(verdict(script("s4", script("s3", musl("m")))), Verdict::other_libc);
}

TEST_F(ProgramInspection, SetuidBitOfAScriptIsIgnored) {
  const std::string program = script("s", good("p"));
  ASSERT_EQ(chmod(program.c_str(), 04755), 0);
  credentials_.real_user = credentials_.effective_user = getuid() + 1;
  EXPECT_EQ(verdict(program), Verdict::with_shunt);
}

TEST_F(ProgramInspection, EnvIsFollowedToWhatItFinds) {
  musl("bin/tool");
  statically_linked("static/env");
  const ScopedVariable path("PATH", (directory_.path() / "bin").c_str());
  const std::string env = good("good/env");
  EXPECT_EQ(verdict(script("s1", env + " tool")), Verdict::other_libc);
  EXPECT_EQ(verdict(script("s2", env + " -S tool -x")), Verdict::other_libc);
  EXPECT_EQ(verdict(script("s3", (directory_.path() / "static/env").string() + " tool")), Verdict::other_libc);
  EXPECT_EQ(verdict(script("s4", env + " -i tool")), Verdict::with_shunt);  // not followed: only env is known
  const Inspection missing = inspect(script("s5", env + " none"));
  EXPECT_EQ(missing.verdict, Verdict::cannot_start);
  EXPECT_EQ(missing.reason, "its interpreter none does not exist");
}

TEST_F(ProgramInspection, EnvHasToSurviveThePreloadItself) {
  good("bin/tool");
  const ScopedVariable path("PATH", (directory_.path() / "bin").c_str());
  EXPECT_EQ(verdict(script("s", musl("env") + " tool")), Verdict::other_libc);
}

TEST_F(ProgramInspection, MissingInterpreterShowsACarriageReturn) {
  EXPECT_EQ(inspect(script("s", "/none/sh\r")).reason, "its interpreter /none/sh\\r does not exist");
}

TEST_F(ProgramInspection, ScriptsInACircleEnd) {
  const std::string self = (directory_.path() / "s").string();
  script("s", self);
  verdict(self);  // any verdict: execve will say ELOOP
}

TEST_F(ProgramInspection, DamagedProgramIsLeftToTheKernel) {
  EXPECT_EQ(verdict(directory_.write("p", std::string(ELFMAG, SELFMAG))), Verdict::with_shunt);
}

}  // namespace
}  // namespace shunt::cli
