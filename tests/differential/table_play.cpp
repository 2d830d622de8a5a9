// Which connections the cells are played on, and the comparison.
#include "table_play.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>

namespace shunt::differential {
namespace {

constexpr const char* kWatchNames[] = {"", ", watched", ", watched with room for one"};
constexpr int kProbe = 5;
constexpr size_t kMostShown = 40;
constexpr int kChaosHalfEchoes = 60;

// With the library eager. Those that are common are played in full, of the others one cell of so many.
std::vector<Setup> eager_setups() {
  std::vector<Setup> setups;
  for (const bool accepted : {false, true})
    for (const Watch watch : {Watch::no, Watch::yes, Watch::with_room_for_one})
      setups.push_back({"on rings", Stand::on_rings, 12, Leaver::nobody, 0, accepted, watch});
  for (const bool accepted : {false, true}) {
    for (const Watch watch : {Watch::no, Watch::yes}) {
      setups.push_back({"new", Stand::between, 0, Leaver::nobody, 0, accepted, watch});
      setups.push_back({"offered", Stand::between, 1, Leaver::nobody, 0, accepted, watch});
      setups.push_back({"one direction on its ring", Stand::between, 2, Leaver::nobody, 0, accepted, watch});
      setups.push_back({"between the fences", Stand::between, 3, Leaver::nobody, 0, accepted, watch});
      setups.push_back({"has just left", Stand::between, 12, Leaver::own, 0, accepted, watch});
      setups.push_back({"has left, one answer", Stand::between, 12, Leaver::own, 1, accepted, watch});
      setups.push_back({"has left, two answers", Stand::between, 12, Leaver::own, 2, accepted, watch});
      setups.push_back({"has left", Stand::in_kernel, 12, Leaver::own, 6, accepted, watch});
      setups.push_back({"peer has just left", Stand::between, 12, Leaver::peer, 0, accepted, watch});
      setups.push_back({"peer has left, one answer", Stand::between, 12, Leaver::peer, 1, accepted, watch});
      setups.push_back({"peer has left, two answers", Stand::between, 12, Leaver::peer, 2, accepted, watch});
      setups.push_back({"peer has left", Stand::in_kernel, 12, Leaver::peer, 6, accepted, watch});
    }
  }
  return setups;
}

class Table {
 public:
  explicit Table(const std::string& directory) : states_(directory), cells_(all_cells()) {
    for (std::vector<std::optional<Answers>>& answers : reference_) answers.resize(cells_.size());
  }

  const std::vector<Cell>& cells() const { return cells_; }
  // Asked once.
  const Answers& reference(size_t cell, Watch watch) {
    std::optional<Answers>& answers = reference_[watch != Watch::no][cell];
    if (!answers) answers = states_.reference(cells_[cell], watch == Watch::no ? Watch::no : Watch::yes);
    return *answers;
  }

  void play(size_t number, const Setup& setup, int first) {
    const Cell& cell = cells_[number];
    const Answers ours = states_.connected(cell, setup, first);
    const Answers& kernels = reference(number, setup.watch);
    ++played_;
    for (int i = 0; i < kQuestions; ++i) {
      const auto question = static_cast<Question>(i);
      if (ours[question] == kernels[question] || excused(cell, setup, question, ours, kernels)) continue;
      if (++different_ <= kMostShown)
        std::printf("%s%s%s: %s\n  %s: got %s, the kernel says %s\n", setup.name,
                    setup.accepted ? ", accepted" : ", connected", kWatchNames[static_cast<int>(setup.watch)],
                    shown(cell).c_str(), name_of(question), shown_answer(question, ours[question]).c_str(),
                    shown_answer(question, kernels[question]).c_str());
    }
  }

  // That a setup leads where it is to lead.
  bool held_by(const Setup& setup, bool kernel) {
    const int held = states_.held_by_kernel(setup, kProbe);
    if ((held >= kProbe) == kernel) return true;
    std::printf("%s: the kernel holds %d of %d bytes\n", setup.name, held, kProbe);
    return false;
  }

  bool good() const {
    std::printf("%zu cells played, %zu answers differ", played_, different_);
    for (const auto& [name, times] : excused_) std::printf("; %s: %zu", name.c_str(), times);
    std::printf("\n");
    std::fflush(stdout);
    return different_ == 0;
  }

 private:
  bool excused(const Cell& cell, const Setup& setup, Question question, const Answers& ours, const Answers& kernels) {
    for (const Rule& rule : rules()) {
      if (!rule.excuses(cell, setup, question, ours, kernels)) continue;
      ++excused_[rule.name];
      return true;
    }
    return false;
  }

  States states_;
  std::vector<Cell> cells_;
  std::vector<std::optional<Answers>> reference_[2];  // not watched, watched
  size_t played_ = 0;
  size_t different_ = 0;
  std::map<std::string, size_t> excused_;
};

bool is_common(const Setup& setup) { return setup.is == Stand::on_rings && setup.watch != Watch::with_room_for_one; }

bool play_eager(Table& table, bool accelerated, uint64_t seed, unsigned every) {
  bool good = true;
  if (!accelerated) every *= kRare;
  for (const Setup& setup : eager_setups()) {
    if (accelerated && is_common(setup)) good &= table.held_by(setup, false);
    if (accelerated && setup.is == Stand::in_kernel) good &= table.held_by(setup, true);
    const unsigned step = is_common(setup) ? common_step(every) : every;
    for (size_t i = seed % step; i < table.cells().size(); i += step) table.play(i, setup, 0);
    ++seed;
  }
  return good;
}

void play_chaos(Table& table, uint64_t seed, unsigned every) {
  for (size_t i = seed % every; i < table.cells().size(); i += every) {
    const auto turn = static_cast<int>(seed + i / every);
    const Setup setup{"in chaos",
                      Stand::anywhere,
                      turn % kChaosHalfEchoes,
                      Leaver::nobody,
                      0,
                      turn / 2 % 2 == 0,
                      turn % 2 == 0 ? Watch::no : Watch::yes};
    table.play(i, setup, 10 + turn % 101);
  }
}

}  // namespace

bool play_table(const std::string& directory, Fences fences, uint64_t seed, unsigned every) {
  Table table(directory);
  bool reached = true;
  if (fences == Fences::anywhere)
    play_chaos(table, seed, every);
  else
    reached = play_eager(table, std::getenv("SHUNT_UPGRADE") != nullptr, seed, every);
  return table.good() && reached;
}

}  // namespace shunt::differential
