#include "schedule.h"

#include <algorithm>
#include <stdexcept>

namespace pymgan {

Storage Storage::parse(const std::string& text) {
  if (text == "all") return {Mode::all, 1};
  if (text == "phi") return {Mode::phi, 1};
  if (text == "nested") return {Mode::nested, 1};
  if (text.rfind("every:", 0) == 0) {
    const std::string digits = text.substr(6);
    if (!digits.empty() && digits.size() < 10 && digits.find_first_not_of("0123456789") == std::string::npos &&
        std::stoi(digits) > 0)
      return {Mode::every, std::stoi(digits)};
  }
  throw std::invalid_argument("storage: expected 'all', 'phi', 'every:S' with S >= 1 or 'nested', got '" + text + "'");
}

std::string Storage::text() const {
  switch (mode) {
    case Mode::all:
      return "all";
    case Mode::phi:
      return "phi";
    case Mode::nested:
      return "nested";
    case Mode::every:
      return "every:" + std::to_string(every);
  }
  return {};
}

int64_t StorageSchedule::repeated_steps() const {
  return std::count_if(pullback.begin(), pullback.end(), [](const Action& a) { return a.kind == Action::Kind::step; });
}

namespace {

// Pulls steps [first, last) whose first snapshot is in slot `from`; scratch slots from `free` on may be overwritten.
void pull_range(StorageSchedule& s, int first, int last, int from, int free) {
  if (last - first == 1) {
    s.pullback.push_back({Action::Kind::pull, first, from, -1});
    return;
  }
  const int middle = first + (last - first) / 2;
  s.scratch_slots = std::max(s.scratch_slots, free + 1 - s.kept_slots);
  for (int k = first; k < middle; ++k) s.pullback.push_back({Action::Kind::step, k, k == first ? from : free, free});
  pull_range(s, middle, last, free, free + 1);
  pull_range(s, first, middle, from, free);
}

}  // namespace

StorageSchedule schedule_storage(const Storage& storage, int steps) {
  StorageSchedule s;
  s.slot_of_step.assign(steps + 1, -1);
  if (storage.mode == Storage::Mode::nested) {
    s.kept_slots = 1;
    s.slot_of_step[0] = 0;
    pull_range(s, 0, steps, 0, 1);
    return s;
  }
  const int every = storage.mode == Storage::Mode::every ? storage.every : 1;
  for (int k = 0; k < steps; k += every) s.slot_of_step[k] = s.kept_slots++;
  if (storage.mode == Storage::Mode::all) s.slot_of_step[steps] = s.kept_slots++;  // alternating play reads D_{k+1}
  s.scratch_slots = std::min(every, steps) - 1;
  for (int first = (steps - 1) / every * every; first >= 0; first -= every) {
    const int last = std::min(first + every, steps);
    auto slot = [&](int k) { return k == first ? s.slot_of_step[first] : s.kept_slots + (k - first - 1); };
    for (int k = first; k + 1 < last; ++k) s.pullback.push_back({Action::Kind::step, k, slot(k), slot(k + 1)});
    for (int k = last - 1; k >= first; --k) s.pullback.push_back({Action::Kind::pull, k, slot(k), -1});
  }
  return s;
}

}  // namespace pymgan
