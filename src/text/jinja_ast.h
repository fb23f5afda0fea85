#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/jinja_value.h"

namespace kvasir::jinja {

enum class NodeKind {
  // Expressions. `kids` are the operands unless said otherwise.
  kLiteral,  ///< value
  kName,     ///< text
  kList,
  kTuple,
  kDict,       ///< key, value, key, value, ...
  kAttribute,  ///< kids[0].text
  kItem,       ///< kids[0][kids[1]]
  kSlice,      ///< kids[0][kids[1]:kids[2]:kids[3]]; absent ones are null
  kCall,       ///< kids[0](args)
  kFilter,     ///< kids[0] | text(args); kids[0] is null in a filter block
  kTest,       ///< kids[0] is text(args)
  kNot,
  kNegate,
  kPlus,
  kBinary,  ///< text is the operator
  kAnd,
  kOr,
  kCompare,    ///< kids[0] ops[0] kids[1] ops[1] kids[2] ...
  kConcat,     ///< all kids
  kCondition,  ///< kids[0] if kids[1] else kids[2] (may be null)
  // Statements.
  kData,    ///< text
  kOutput,  ///< {{ kids[0] }}
  kIf,      ///< kids: conditions; bodies: one each, and one more for else
  kFor,  ///< kids[0]: target, kids[1]: iterable, kids[2]: filter (may be null); bodies: loop, else
  kSet,  ///< kids[0]: target, kids[1]: value
  kSetBlock,     ///< kids[0]: target, kids[1]: filter (may be null); bodies[0]
  kMacro,        ///< text: name, params, kids: defaults of the last params; bodies[0]
  kCallBlock,    ///< kids[0]: the call; params and bodies[0] are the caller()
  kFilterBlock,  ///< kids[0]: a chain of kFilter; bodies[0]
  kWith,         ///< kids: target, value, target, value, ...; bodies[0]
  kBreak,
  kContinue,
};

struct Node;
using NodePtr = std::unique_ptr<Node>;
using Body = std::vector<NodePtr>;

struct Argument {
  std::string name;  ///< empty: positional
  int spread = 0;    ///< 1: *args, 2: **kwargs
  NodePtr value;
};

struct Node {
  NodeKind kind;
  int line = 1;
  int depth = 1;  ///< of nesting below, bounded by the parser
  std::string text;
  Value value;
  std::vector<NodePtr> kids;
  std::vector<Argument> args;
  std::vector<std::string> ops, params;
  std::vector<Body> bodies;
  bool recursive = false;  ///< kFor
};

}  // namespace kvasir::jinja
