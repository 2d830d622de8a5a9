// The kernel's half of the table as a page: equal answers in one row.
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "table_play.h"

namespace shunt::differential {
namespace {

constexpr size_t kColumns = 5;
constexpr std::array<int, kColumns> kValues = {kPeers, kOwns, kIncoming, kOutgoing, kSinces};
constexpr Question kAnswers[] = {Question::poll, Question::select, Question::unread,
                                 Question::recv, Question::send,   Question::error};

using Values = std::array<unsigned, kColumns>;  // a bit for each value that the row is about

struct Row {
  Values values;
  std::string answers;
};

const char* name_of(size_t column, int value) {
  switch (column) {
    case 0:
      return name_of(static_cast<Peer>(value));
    case 1:
      return name_of(static_cast<Own>(value));
    case 2:
      return name_of(static_cast<Incoming>(value));
    case 3:
      return name_of(static_cast<Outgoing>(value));
    default:
      return name_of(static_cast<Since>(value));
  }
}

std::string shown_select(long bits) {
  constexpr const char* kNames[] = {"–", "r", "w", "r w", "x", "r x", "w x", "r w x"};
  return kNames[bits];
}

std::string shown_poll(long bits) {
  std::string text = shown_answer(Question::poll, bits);
  for (const char* twin : {" RDNORM", " WRNORM", " WRBAND"})  // POLLIN and POLLOUT by other names
    if (const size_t at = text.find(twin); at != std::string::npos) text.erase(at, std::string(twin).size());
  return text;
}

// What the page says of epoll in its head.
bool is_as_polled(const Answers& answers) {
  for (const Question question :
       {Question::level, Question::edge, Question::edge_modified, Question::one_shot, Question::one_shot_modified})
    if (answers[question] != answers[Question::poll]) return false;
  return answers[Question::edge_again] == 0 && answers[Question::one_shot_again] == 0 &&
         answers[Question::level_nothing] == answers[Question::poll_nothing];
}

std::string answers_of(const Answers& answers) {
  std::string text = is_as_polled(answers) ? "" : "(epoll says something else) ";
  for (const Question question : kAnswers) {
    const long answer = answers[question];
    text += question == Question::select ? shown_select(answer)
            : question == Question::poll ? shown_poll(answer)
                                         : shown_answer(question, answer);
    text += " | ";
  }
  return text;
}

// Rows that answer the same and differ in one column become one.
std::vector<Row> folded(std::vector<Row> rows) {
  for (bool shorter = true; shorter;) {
    const size_t before = rows.size();
    for (size_t column = kColumns; column-- > 0;) {
      std::map<std::pair<Values, std::string>, unsigned> together;
      for (Row row : rows) {
        const unsigned values = std::exchange(row.values[column], 0);
        together[{row.values, row.answers}] |= values;
      }
      rows.clear();
      for (const auto& [rest, values] : together) {
        rows.push_back({rest.first, rest.second});
        rows.back().values[column] = values;
      }
    }
    shorter = rows.size() < before;
  }
  return rows;
}

std::string shown(const Row& row) {
  std::string text = "| ";
  for (size_t column = 0; column < kColumns; ++column) {
    std::string names;
    for (int value = 0; value < kValues[column]; ++value)
      if (row.values[column] >> value & 1) names += (names.empty() ? "" : "; ") + std::string(name_of(column, value));
    const bool any = row.values[column] == (1U << kValues[column]) - 1;
    text += (any ? "any" : names) + " | ";
  }
  return text + row.answers;
}

constexpr const char* kHead =
    R"(# What the kernel says of a stream, state by state

Written by `differential --table-page`; a test fails when the kernel of the same version says something else. The library has to say the same:
`Table.*` in [the lock step](../tests/differential/README.md) compares with the kernel that is running, not with this page.

One end of a connection was asked after these steps: the peer sent 5 bytes or none (**incoming**), this end sent 7, or as many as there was room for
(**outgoing**), then this end shut (**own end**), then the **peer** shut, was closed or killed, and then the program did what **since** says: `recv` or
`send` of one byte, SO_ERROR, or it read until there was an end or an error (drained), or until the second one.

The answers: `poll` for everything (POLLRDNORM comes with IN, POLLWRNORM and POLLWRBAND with OUT), `select` (r, w, x), FIONREAD, and then, one after the other,
`recv` of one byte, `send` of one byte and SO_ERROR. epoll, level triggered, says what poll says; edge triggered and one-shot the same at the first look and after
EPOLL_CTL_MOD, and nothing at the second.

)";

}  // namespace

std::string table_page(const std::string& directory) {
  States states(directory);
  std::vector<Row> rows;
  for (int i = 0; i < kPeers * kOwns * kIncoming * kOutgoing * kSinces; ++i) {
    int rest = i;
    std::array<int, kColumns> at;
    for (size_t column = 0; column < kColumns; ++column)
      at[column] = std::exchange(rest, rest / kValues[column]) % kValues[column];
    const Cell cell{.incoming = static_cast<Incoming>(at[2]),
                    .outgoing = static_cast<Outgoing>(at[3]),
                    .peer = static_cast<Peer>(at[0]),
                    .own = static_cast<Own>(at[1]),
                    .order = Order::bytes_own_peer,
                    .since = static_cast<Since>(at[4])};
    Row row{{}, answers_of(states.reference(cell, Watch::no))};
    for (size_t column = 0; column < kColumns; ++column) row.values[column] = 1U << at[column];
    rows.push_back(row);
  }
  rows = folded(std::move(rows));
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.values < b.values; });
  std::string page = kHead;
  page += asked_of() +
          "\n\n| peer | own end | incoming | outgoing | since | poll | select | FIONREAD | recv | send | SO_ERROR |\n|";
  for (size_t i = 0; i < kColumns + std::size(kAnswers); ++i) page += "---|";
  for (const Row& row : rows) page += "\n" + shown(row).substr(0, shown(row).size() - 1);
  return page + "\n";
}

std::string asked_of() {
  utsname names{};
  ::uname(&names);
  const std::string release = names.release;
  return "Asked of Linux " + release.substr(0, release.find('.', release.find('.') + 1)) + ".";
}

}  // namespace shunt::differential
