#pragma once
// The one table of everything that a run can be told. Parsing, checking, the command line, printing, hashing
// and the documentation all read it; nothing else knows the names of options.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/option_value.h"

namespace qlora {

// Whether an option is part of a run's identity.
enum class Identity : uint8_t {
  out,     // changes no number: paths, logging, saving, threads; or its content's hash stands for it
  in,      // left out of the hash while it equals `since`, so that a new option keeps all old ids
  always,  // in the hash whatever its value
};

struct Option {
  std::string name = {};  // of Hugging Face's TrainingArguments or of qlora.py where they have one
  ValueKind kind = ValueKind::text;
  std::string fallback = {};  // the default, as one would write it
  bool required = false;      // no default: must be given
  Identity identity = Identity::in;
  std::string since =
      {};  // the default it had when first released; empty: `fallback`. Never changed afterwards
  std::vector<std::string> aliases = {};  // what other tools call it
  std::vector<std::string> choices = {};  // accepted values; "raise=error" is a second spelling of `error`
  double least = -1e300, most = 1e300;    // of numbers
  std::string help = {};
};

std::span<const Option> options();

// The option with this name, or null. A dash counts as an underscore.
const Option* find_option(std::string_view name);
// The option that `key` or an alias of it names, or null.
const Option* find_option_or_alias(std::string_view key);

// A key of other tools that switches something on or off: what it says in our words.
struct Translation {
  std::string key;
  std::string option;
  std::string if_true, if_false;  // empty: says nothing
  bool denies = false;            // `if_false` only rules one value out: it yields to what says more
};
const Translation* find_translation(std::string_view key);

// A key that is understood, but whose values this build cannot honour, apart from the harmless ones.
struct Unavailable {
  std::vector<std::string> keys;
  std::vector<std::string> harmless;
  std::string advice;  // what this build can do instead
};
const Unavailable* find_unavailable(std::string_view key);

// Every key that may be written, for "did you mean".
std::vector<std::string> known_keys();

// Reads a value of `option`, checks choices and range, and puts second spellings right. Throws Error(usage)
// at the node's place.
OptionValue read_option(const Option&, const YamlNode&);
// The value that `text` stands for, e.g. a default. REQUIRES: text is valid for the option.
OptionValue parse_option(const Option&, std::string_view text);

// A table for a README and `qlora doctor --options`: name, default, meaning, one line each.
std::string describe_options();

}  // namespace qlora
