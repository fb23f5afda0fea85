#include "text/jinja_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

#include "text/jinja_lexer.h"

namespace kvasir::jinja {
namespace {

class Parser {
 public:
  Parser(std::vector<Token> tokens, int max_depth)
      : tokens_(std::move(tokens)), max_depth_(max_depth) {}

  Body ParseTemplate() { return ParseBody({}); }

 private:
  // Tokens.
  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  bool IsOp(std::string_view op) const {
    return Now().kind == TokenKind::kOperator && Now().text == op;
  }
  bool IsName(std::string_view name) const {
    return Now().kind == TokenKind::kName && Now().text == name;
  }
  void Next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool TakeOp(std::string_view op) {
    if (!IsOp(op)) return false;
    Next();
    return true;
  }
  bool TakeName(std::string_view name) {
    if (!IsName(name)) return false;
    Next();
    return true;
  }
  [[noreturn]] void Fail(const std::string& message) const {
    throw TemplateError(fmt::format("line {}: {}", Now().line, message));
  }
  std::string Describe() const {
    switch (Now().kind) {
      case TokenKind::kEnd:
        return "the end of the template";
      case TokenKind::kBlockEnd:
        return "%}";
      case TokenKind::kVariableEnd:
        return "}}";
      case TokenKind::kString:
        return "a string";
      default:
        return "'" + Now().text + "'";
    }
  }
  void ExpectOp(std::string_view op) {
    if (!TakeOp(op)) Fail(fmt::format("expected '{}', found {}", op, Describe()));
  }
  void ExpectName(std::string_view name) {
    if (!TakeName(name)) Fail(fmt::format("expected '{}', found {}", name, Describe()));
  }
  std::string TakeIdentifier() {
    if (Now().kind != TokenKind::kName) Fail("expected a name, found " + Describe());
    std::string name = Now().text;
    Next();
    return name;
  }
  void ExpectBlockEnd() {
    if (Now().kind != TokenKind::kBlockEnd) Fail("expected %}, found " + Describe());
    Next();
  }

  // Nodes.
  NodePtr Make(NodeKind kind) const {
    auto n = std::make_unique<Node>();
    n->kind = kind;
    n->line = Now().line;
    return n;
  }
  /// Adds an operand; a tree that is too deep to walk and free with a bounded stack is refused.
  void AddKid(Node* n, NodePtr kid) const {
    if (kid) Deepen(n, *kid);
    n->kids.push_back(std::move(kid));
  }
  void Deepen(Node* n, const Node& below) const {
    n->depth = std::max(n->depth, below.depth + 1);
    if (n->depth > max_depth_)
      Fail(fmt::format("expressions are nested more than {} deep", max_depth_));
  }
  template <typename... Kids>
  NodePtr Make(NodeKind kind, NodePtr first, Kids... rest) const {
    NodePtr n = Make(kind);
    AddKid(n.get(), std::move(first));
    (AddKid(n.get(), std::move(rest)), ...);
    return n;
  }
  NodePtr Literal(Value v) const {
    NodePtr n = Make(NodeKind::kLiteral);
    n->value = std::move(v);
    return n;
  }

  /// Counts nesting while parsing, which is what uses the stack.
  struct Nesting {
    explicit Nesting(Parser* parser) : p(parser) {
      if (++p->nesting_ > p->max_depth_)
        p->Fail(fmt::format("nested more than {} deep", p->max_depth_));
    }
    ~Nesting() { --p->nesting_; }
    Parser* p;
  };

  // Statements.
  Body ParseBody(std::initializer_list<std::string_view> ends);
  NodePtr ParseStatement();
  NodePtr ParseIf();
  NodePtr ParseFor();
  NodePtr ParseSet();
  NodePtr ParseMacro();
  NodePtr ParseCallBlock();
  NodePtr ParseFilterBlock();
  NodePtr ParseWith();
  void ParseParams(Node* n);
  NodePtr ParseTarget(bool allow_attribute);
  void AddBody(Node* n, std::initializer_list<std::string_view> ends) {
    Body body = ParseBody(ends);
    for (const NodePtr& statement : body) Deepen(n, *statement);
    n->bodies.push_back(std::move(body));
  }

  // Expressions, from the weakest binding to the strongest, as jinja2's parser has them.
  NodePtr ParseTupleOrExpression();
  NodePtr ParseExpression();
  NodePtr ParseOr();
  NodePtr ParseAnd();
  NodePtr ParseNot();
  NodePtr ParseCompare();
  NodePtr ParseSum();
  NodePtr ParseConcat();
  NodePtr ParseProduct();
  NodePtr ParsePower();
  NodePtr ParseUnary(bool with_filters);
  NodePtr ParsePrimary();
  NodePtr ParsePostfix(NodePtr n);
  NodePtr ParseSubscript(NodePtr n);
  NodePtr ParseFilters(NodePtr n);
  NodePtr ParseFilter(NodePtr n);
  NodePtr ParseTest(NodePtr n);
  void ParseArguments(Node* n);
  NodePtr ParseSequence(NodeKind kind, std::string_view end);
  NodePtr ParseDict();
  std::string ParseDottedName();

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int max_depth_;
  int loops_ = 0;
};

Body Parser::ParseBody(std::initializer_list<std::string_view> ends) {
  const Nesting nesting(this);
  const int line = Now().line;
  Body body;
  for (;;) {
    switch (Now().kind) {
      case TokenKind::kEnd:
        if (ends.size() != 0) {
          throw TemplateError(
              fmt::format("line {}: a block has no {{% {} %}}", line, *(ends.end() - 1)));
        }
        return body;
      case TokenKind::kData: {
        NodePtr n = Make(NodeKind::kData);
        n->text = Now().text;
        body.push_back(std::move(n));
        Next();
        break;
      }
      case TokenKind::kVariableBegin: {
        Next();
        body.push_back(Make(NodeKind::kOutput, ParseTupleOrExpression()));
        if (Now().kind != TokenKind::kVariableEnd) Fail("expected }}, found " + Describe());
        Next();
        break;
      }
      case TokenKind::kBlockBegin: {
        Next();
        if (Now().kind == TokenKind::kName &&
            std::find(ends.begin(), ends.end(), Now().text) != ends.end()) {
          return body;
        }
        if (TakeName("generation")) {  // marks what the model writes: a scope, and nothing else
          NodePtr n = Make(NodeKind::kWith);
          ExpectBlockEnd();
          AddBody(n.get(), {"endgeneration"});
          Next();
          ExpectBlockEnd();
          body.push_back(std::move(n));
          break;
        }
        body.push_back(ParseStatement());
        break;
      }
      default:
        Fail("unexpected " + Describe());
    }
  }
}

NodePtr Parser::ParseStatement() {
  const std::string name = Now().kind == TokenKind::kName ? Now().text : std::string();
  if (name == "if") return ParseIf();
  if (name == "for") return ParseFor();
  if (name == "set") return ParseSet();
  if (name == "macro") return ParseMacro();
  if (name == "call") return ParseCallBlock();
  if (name == "filter") return ParseFilterBlock();
  if (name == "with") return ParseWith();
  if (name == "break" || name == "continue") {
    if (loops_ == 0) Fail(name + " outside of a loop");
    NodePtr n = Make(name == "break" ? NodeKind::kBreak : NodeKind::kContinue);
    Next();
    ExpectBlockEnd();
    return n;
  }
  if (name.substr(0, 3) == "end" || name == "else" || name == "elif")
    Fail("unexpected " + Describe());
  Fail(fmt::format("the statement {} is not supported", Describe()));
}

NodePtr Parser::ParseIf() {
  NodePtr n = Make(NodeKind::kIf);
  Next();
  for (;;) {
    AddKid(n.get(), ParseTupleOrExpression());
    ExpectBlockEnd();
    AddBody(n.get(), {"elif", "else", "endif"});
    if (TakeName("elif")) continue;
    if (TakeName("else")) {
      ExpectBlockEnd();
      AddBody(n.get(), {"endif"});
    }
    ExpectName("endif");
    ExpectBlockEnd();
    return n;
  }
}

NodePtr Parser::ParseFor() {
  NodePtr n = Make(NodeKind::kFor);
  Next();
  AddKid(n.get(), ParseTarget(false));
  ExpectName("in");
  // Without the ternary: its `if` is the loop's filter.
  NodePtr iterable = ParseOr();
  if (IsOp(",")) {
    NodePtr tuple = Make(NodeKind::kTuple, std::move(iterable));
    while (TakeOp(",")) AddKid(tuple.get(), ParseOr());
    iterable = std::move(tuple);
  }
  AddKid(n.get(), std::move(iterable));
  AddKid(n.get(), TakeName("if") ? ParseExpression() : nullptr);
  n->recursive = TakeName("recursive");
  ExpectBlockEnd();
  ++loops_;
  AddBody(n.get(), {"else", "endfor"});
  --loops_;
  if (TakeName("else")) {
    ExpectBlockEnd();
    AddBody(n.get(), {"endfor"});
  }
  ExpectName("endfor");
  ExpectBlockEnd();
  return n;
}

/// What a value is assigned to: a name, several, or an attribute of a namespace.
NodePtr Parser::ParseTarget(bool allow_attribute) {
  const auto one = [&]() -> NodePtr {
    const Nesting nesting(this);
    if (TakeOp("(")) {
      NodePtr inner = ParseTarget(false);
      ExpectOp(")");
      return inner;
    }
    NodePtr n = Make(NodeKind::kName);
    n->text = TakeIdentifier();
    return n;
  };
  NodePtr first = one();
  if (allow_attribute && TakeOp(".")) {
    NodePtr n = Make(NodeKind::kAttribute, std::move(first));
    n->text = TakeIdentifier();
    return n;
  }
  if (!IsOp(",")) return first;
  NodePtr tuple = Make(NodeKind::kTuple, std::move(first));
  while (TakeOp(",")) {
    if (Now().kind != TokenKind::kName && !IsOp("(")) break;
    if (IsName("in")) break;
    AddKid(tuple.get(), one());
  }
  return tuple;
}

NodePtr Parser::ParseSet() {
  NodePtr n = Make(NodeKind::kSet);
  Next();
  AddKid(n.get(), ParseTarget(true));
  if (TakeOp("=")) {
    AddKid(n.get(), ParseTupleOrExpression());
    ExpectBlockEnd();
    return n;
  }
  n->kind = NodeKind::kSetBlock;
  AddKid(n.get(), IsOp("|") ? ParseFilters(nullptr) : nullptr);
  ExpectBlockEnd();
  AddBody(n.get(), {"endset"});
  ExpectName("endset");
  ExpectBlockEnd();
  return n;
}

void Parser::ParseParams(Node* n) {
  ExpectOp("(");
  while (!IsOp(")")) {
    if (!n->params.empty()) ExpectOp(",");
    if (IsOp(")")) break;
    n->params.push_back(TakeIdentifier());
    if (TakeOp("=")) {
      AddKid(n, ParseExpression());
    } else if (!n->kids.empty() && n->kind == NodeKind::kMacro) {
      Fail("a parameter without a default after one with a default");
    }
  }
  Next();
}

NodePtr Parser::ParseMacro() {
  NodePtr n = Make(NodeKind::kMacro);
  Next();
  n->text = TakeIdentifier();
  ParseParams(n.get());
  ExpectBlockEnd();
  const int loops = std::exchange(loops_, 0);
  AddBody(n.get(), {"endmacro"});
  loops_ = loops;
  Next();
  ExpectBlockEnd();
  return n;
}

NodePtr Parser::ParseCallBlock() {
  NodePtr n = Make(NodeKind::kCallBlock);
  Next();
  // The caller's parameters come first; they are a macro of their own.
  NodePtr caller = Make(NodeKind::kMacro);
  caller->text = "caller";
  if (IsOp("(")) ParseParams(caller.get());
  NodePtr call = ParseExpression();
  if (call->kind != NodeKind::kCall) Fail("{% call %} needs a call");
  AddKid(n.get(), std::move(call));
  ExpectBlockEnd();
  const int loops = std::exchange(loops_, 0);
  AddBody(caller.get(), {"endcall"});
  loops_ = loops;
  Next();
  ExpectBlockEnd();
  AddKid(n.get(), std::move(caller));
  return n;
}

NodePtr Parser::ParseFilterBlock() {
  NodePtr n = Make(NodeKind::kFilterBlock);
  Next();
  NodePtr filter = ParseFilter(nullptr);
  AddKid(n.get(), IsOp("|") ? ParseFilters(std::move(filter)) : std::move(filter));
  ExpectBlockEnd();
  AddBody(n.get(), {"endfilter"});
  Next();
  ExpectBlockEnd();
  return n;
}

NodePtr Parser::ParseWith() {
  NodePtr n = Make(NodeKind::kWith);
  Next();
  while (Now().kind != TokenKind::kBlockEnd) {
    if (!n->kids.empty()) ExpectOp(",");
    AddKid(n.get(), ParseTarget(false));
    ExpectOp("=");
    AddKid(n.get(), ParseExpression());
  }
  ExpectBlockEnd();
  AddBody(n.get(), {"endwith"});
  Next();
  ExpectBlockEnd();
  return n;
}

NodePtr Parser::ParseTupleOrExpression() {
  NodePtr first = ParseExpression();
  if (!IsOp(",")) return first;
  NodePtr tuple = Make(NodeKind::kTuple, std::move(first));
  while (TakeOp(",")) {
    const TokenKind kind = Now().kind;
    if (kind == TokenKind::kBlockEnd || kind == TokenKind::kVariableEnd || IsOp(")")) break;
    AddKid(tuple.get(), ParseExpression());
  }
  return tuple;
}

NodePtr Parser::ParseExpression() {
  const Nesting nesting(this);
  NodePtr n = ParseOr();
  while (TakeName("if")) {
    NodePtr condition = ParseOr();
    NodePtr otherwise = TakeName("else") ? ParseExpression() : nullptr;
    n = Make(NodeKind::kCondition, std::move(n), std::move(condition), std::move(otherwise));
  }
  return n;
}

NodePtr Parser::ParseOr() {
  NodePtr n = ParseAnd();
  if (!IsName("or")) return n;
  n = Make(NodeKind::kOr, std::move(n));
  while (TakeName("or")) AddKid(n.get(), ParseAnd());
  return n;
}

NodePtr Parser::ParseAnd() {
  NodePtr n = ParseNot();
  if (!IsName("and")) return n;
  n = Make(NodeKind::kAnd, std::move(n));
  while (TakeName("and")) AddKid(n.get(), ParseNot());
  return n;
}

NodePtr Parser::ParseNot() {
  const Nesting nesting(this);
  if (TakeName("not")) return Make(NodeKind::kNot, ParseNot());
  return ParseCompare();
}

NodePtr Parser::ParseCompare() {
  NodePtr n = ParseSum();
  NodePtr compare;
  for (;;) {
    std::string op;
    for (const char* candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (TakeOp(candidate)) {
        op = candidate;
        break;
      }
    }
    if (op.empty() && TakeName("in")) op = "in";
    if (op.empty() && IsName("not") && Ahead().kind == TokenKind::kName && Ahead().text == "in") {
      Next();
      Next();
      op = "not in";
    }
    if (op.empty()) return compare ? std::move(compare) : std::move(n);
    if (!compare) compare = Make(NodeKind::kCompare, std::move(n));
    compare->ops.push_back(op);
    AddKid(compare.get(), ParseSum());
  }
}

NodePtr Parser::ParseSum() {
  NodePtr n = ParseConcat();
  while (IsOp("+") || IsOp("-")) {
    const std::string op = Now().text;
    Next();
    n = Make(NodeKind::kBinary, std::move(n), ParseConcat());
    n->text = op;
  }
  return n;
}

NodePtr Parser::ParseConcat() {
  NodePtr n = ParseProduct();
  if (!IsOp("~")) return n;
  n = Make(NodeKind::kConcat, std::move(n));
  while (TakeOp("~")) AddKid(n.get(), ParseProduct());
  return n;
}

NodePtr Parser::ParseProduct() {
  NodePtr n = ParsePower();
  while (IsOp("*") || IsOp("/") || IsOp("//") || IsOp("%")) {
    const std::string op = Now().text;
    Next();
    n = Make(NodeKind::kBinary, std::move(n), ParsePower());
    n->text = op;
  }
  return n;
}

NodePtr Parser::ParsePower() {
  NodePtr n = ParseUnary(true);
  while (TakeOp("**")) {
    n = Make(NodeKind::kBinary, std::move(n), ParseUnary(true));
    n->text = "**";
  }
  return n;
}

NodePtr Parser::ParseUnary(bool with_filters) {
  const Nesting nesting(this);
  NodePtr n;
  if (TakeOp("-")) {
    n = Make(NodeKind::kNegate, ParseUnary(false));
  } else if (TakeOp("+")) {
    n = Make(NodeKind::kPlus, ParseUnary(false));
  } else {
    n = ParsePrimary();
  }
  n = ParsePostfix(std::move(n));
  return with_filters ? ParseFilters(std::move(n)) : std::move(n);
}

NodePtr Parser::ParsePrimary() {
  const Token token = Now();
  switch (token.kind) {
    case TokenKind::kName: {
      Next();
      if (token.text == "true" || token.text == "True") return Literal(Value(true));
      if (token.text == "false" || token.text == "False") return Literal(Value(false));
      if (token.text == "none" || token.text == "None") return Literal(Value::MakeNone());
      NodePtr n = Make(NodeKind::kName);
      n->text = token.text;
      return n;
    }
    case TokenKind::kString: {
      std::string text;
      for (; Now().kind == TokenKind::kString; Next()) text += Now().text;
      return Literal(Value::Str(std::move(text)));
    }
    case TokenKind::kInteger: {
      Next();
      const bool prefixed =
          token.text.size() > 2 && token.text[0] == '0' && !std::isdigit(token.text[1]);
      const int base = !prefixed                            ? 10
                       : std::tolower(token.text[1]) == 'x' ? 16
                       : std::tolower(token.text[1]) == 'o' ? 8
                                                            : 2;
      errno = 0;
      char* end = nullptr;
      const long long i = std::strtoll(token.text.c_str() + (prefixed ? 2 : 0), &end, base);
      if (errno != 0 || *end != '\0')
        Fail(fmt::format("the integer {} is out of range", token.text));
      return Literal(Value(static_cast<int64_t>(i)));
    }
    case TokenKind::kFloat:
      Next();
      return Literal(Value(std::strtod(token.text.c_str(), nullptr)));
    case TokenKind::kOperator:
      if (TakeOp("(")) {
        if (TakeOp(")")) return Make(NodeKind::kTuple);
        NodePtr n = ParseTupleOrExpression();
        ExpectOp(")");
        return n;
      }
      if (TakeOp("[")) return ParseSequence(NodeKind::kList, "]");
      if (TakeOp("{")) return ParseDict();
      break;
    default:
      break;
  }
  Fail("expected an expression, found " + Describe());
}

NodePtr Parser::ParseSequence(NodeKind kind, std::string_view end) {
  NodePtr n = Make(kind);
  while (!IsOp(end)) {
    if (!n->kids.empty()) ExpectOp(",");
    if (IsOp(end)) break;
    AddKid(n.get(), ParseExpression());
  }
  Next();
  return n;
}

NodePtr Parser::ParseDict() {
  NodePtr n = Make(NodeKind::kDict);
  while (!IsOp("}")) {
    if (!n->kids.empty()) ExpectOp(",");
    if (IsOp("}")) break;
    AddKid(n.get(), ParseExpression());
    ExpectOp(":");
    AddKid(n.get(), ParseExpression());
  }
  Next();
  return n;
}

NodePtr Parser::ParsePostfix(NodePtr n) {
  for (;;) {
    if (TakeOp(".")) {
      if (Now().kind == TokenKind::kInteger) {  // a.0
        NodePtr index =
            Literal(Value(static_cast<int64_t>(std::strtoll(Now().text.c_str(), nullptr, 10))));
        Next();
        n = Make(NodeKind::kItem, std::move(n), std::move(index));
        continue;
      }
      n = Make(NodeKind::kAttribute, std::move(n));
      n->text = TakeIdentifier();
    } else if (TakeOp("[")) {
      n = ParseSubscript(std::move(n));
    } else if (IsOp("(")) {
      n = Make(NodeKind::kCall, std::move(n));
      ParseArguments(n.get());
    } else {
      return n;
    }
  }
}

NodePtr Parser::ParseSubscript(NodePtr n) {
  NodePtr first = IsOp(":") ? nullptr : ParseTupleOrExpression();
  if (!IsOp(":")) {
    ExpectOp("]");
    return Make(NodeKind::kItem, std::move(n), std::move(first));
  }
  NodePtr slice = Make(NodeKind::kSlice, std::move(n), std::move(first));
  for (int part = 0; part < 2; ++part) {
    const bool given = TakeOp(":") && !IsOp(":") && !IsOp("]");
    AddKid(slice.get(), given ? ParseExpression() : nullptr);
  }
  ExpectOp("]");
  return slice;
}

void Parser::ParseArguments(Node* n) {
  ExpectOp("(");
  while (!IsOp(")")) {
    if (!n->args.empty()) ExpectOp(",");
    if (IsOp(")")) break;
    Argument argument;
    if (TakeOp("**")) {
      argument.spread = 2;
    } else if (TakeOp("*")) {
      argument.spread = 1;
    } else if (Now().kind == TokenKind::kName && Ahead().kind == TokenKind::kOperator &&
               Ahead().text == "=") {
      argument.name = TakeIdentifier();
      Next();
    } else if (!n->args.empty() && !n->args.back().name.empty()) {
      Fail("a positional argument after a named one");
    }
    argument.value = ParseExpression();
    Deepen(n, *argument.value);
    n->args.push_back(std::move(argument));
  }
  Next();
}

NodePtr Parser::ParseFilters(NodePtr n) {
  for (;;) {
    if (TakeOp("|")) {
      n = ParseFilter(std::move(n));
    } else if (n && IsName("is")) {
      Next();
      n = ParseTest(std::move(n));
    } else if (n && IsOp("(")) {
      n = Make(NodeKind::kCall, std::move(n));
      ParseArguments(n.get());
    } else {
      return n;
    }
  }
}

std::string Parser::ParseDottedName() {
  std::string name = TakeIdentifier();
  while (TakeOp(".")) name += "." + TakeIdentifier();
  return name;
}

// Whether there is such a filter, or test, is asked when it is applied: templates have branches for
// programs that add some of their own.
NodePtr Parser::ParseFilter(NodePtr n) {
  NodePtr filter = Make(NodeKind::kFilter, std::move(n));
  filter->text = ParseDottedName();
  if (IsOp("(")) ParseArguments(filter.get());
  return filter;
}

NodePtr Parser::ParseTest(NodePtr n) {
  const bool negated = TakeName("not");
  NodePtr test = Make(NodeKind::kTest, std::move(n));
  test->text = ParseDottedName();
  if (IsOp("(")) {
    ParseArguments(test.get());
  } else {
    const TokenKind kind = Now().kind;
    const bool word = kind == TokenKind::kName && !IsName("else") && !IsName("or") &&
                      !IsName("and") && !IsName("is") && !IsName("if") && !IsName("in") &&
                      !IsName("not") && !IsName("recursive");
    if (word || kind == TokenKind::kString || kind == TokenKind::kInteger ||
        kind == TokenKind::kFloat || IsOp("[") || IsOp("{")) {
      Argument argument;
      argument.value = ParsePostfix(ParsePrimary());
      Deepen(test.get(), *argument.value);
      test->args.push_back(std::move(argument));
    }
  }
  return negated ? Make(NodeKind::kNot, std::move(test)) : std::move(test);
}

}  // namespace

Body Parse(std::string_view source, int max_depth) {
  return Parser(Lex(source), max_depth).ParseTemplate();
}

}  // namespace kvasir::jinja
