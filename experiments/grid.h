#pragma once
// The axes of a sweep and their product.

#include <string>
#include <vector>

#include "experiments/config.h"

namespace qlora {

// Options that vary together, and the rows of values that they take.
struct SweepAxis {
  std::vector<std::string> names;
  std::vector<std::vector<Setting>> rows;
  Where where;
};

// One option as written under `parameters`, or at the top of a sweep file: a constant goes into `base`,
// several values become an axis. `listed`: a bare list holds several values even for an option that is itself
// a list.
void read_parameter(const YamlNode::Entry&, bool listed, Settings& base, std::vector<SweepAxis>& axes);
// The entries of `zip`.
void read_zip(const YamlNode& list, std::vector<SweepAxis>& axes);

// Every combination over `base`, the last axis fastest. Throws Error(usage) for more than 100,000.
std::vector<Settings> product(const Settings& base, const std::vector<SweepAxis>& axes);

// One map of conditions: every option named must have one of the values named.
struct Condition {
  std::map<std::string, std::vector<OptionValue>> any_of;
  Where where;
};
Condition read_condition(const YamlNode& map);
bool matches(const Condition&, const Settings&);

}  // namespace qlora
