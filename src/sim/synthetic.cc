#include "sim/synthetic.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace kvasir {
namespace {

class Draws {
 public:
  explicit Draws(uint64_t seed) : stream_{seed, 0} {}
  double Uniform() { return stream_.Uniform(next_++); }
  size_t Below(size_t n) { return static_cast<size_t>(Uniform() * static_cast<double>(n)); }
  double Exponential(double mean) { return -mean * std::log(1 - Uniform()); }
  /// At least 1; half to one and a half of the mean.
  int32_t Length(double mean) {
    return std::max(1, static_cast<int32_t>(mean * (0.5 + Uniform())));
  }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

/// A text that may grow: its pieces' ids. The last piece of a prompt is cut to its length, so a
/// longer prompt of the same text has the same ids and goes on.
struct Text {
  std::vector<int64_t> pieces;
  int32_t tokens = 0;
};

void Grow(Text* text, int32_t tokens, int64_t* next_piece) {
  text->tokens += tokens;
  while (static_cast<int32_t>(text->pieces.size()) * kTracePiece < text->tokens)
    text->pieces.push_back((*next_piece)++);
}

constexpr double kSystemPrompt = 1500, kQuestion = 150, kAnswer = 250, kDocument = 16000,
                 kSummary = 300;
constexpr size_t kSystemPrompts = 8, kConversations = 64;
constexpr int32_t kLongestChat = 16000;

}  // namespace

Result<std::vector<TraceRequest>> MakeSynthetic(const SyntheticOptions& o) {
  const bool shared = o.kind == "shared", chats = o.kind == "chats", flood = o.kind == "flood",
             documents = o.kind == "documents";
  if (!shared && !chats && !flood && !documents) {
    return MakeError(ErrorCode::kInvalid,
                     "the workload {} is not known; use shared, chats, documents or flood", o.kind);
  }
  if (o.requests < 1 || o.requests > 10'000'000 || !(o.per_second > 0)) {
    return MakeError(ErrorCode::kInvalid,
                     "a workload needs 1 to 10000000 requests and a rate above 0");
  }
  Draws draw(o.seed);
  int64_t next_piece = 1;
  std::vector<Text> systems(kSystemPrompts);
  for (Text& s : systems) Grow(&s, draw.Length(kSystemPrompt), &next_piece);
  std::vector<Text> conversations(kConversations);
  std::vector<TraceRequest> out(o.requests);
  double now = 0;
  for (TraceRequest& r : out) {
    now += draw.Exponential(1 / o.per_second);
    r.arrival_s = now;
    r.output_tokens = draw.Length(documents ? kSummary : kAnswer);
    Text text;
    if (documents) {
      Grow(&text, draw.Length(kDocument), &next_piece);
    } else if (shared) {
      // The question is in pieces of its own: only the system prompt's whole pieces are shared.
      text = systems[draw.Below(kSystemPrompts)];
      text.tokens -= text.tokens % kTracePiece;
      text.pieces.resize(static_cast<size_t>(text.tokens / kTracePiece));
      Grow(&text, draw.Length(kQuestion), &next_piece);
    } else {
      size_t which = draw.Below(kConversations);
      if (flood) {
        // Of 13 requests one comes from each of three tenants, ten from the fourth.
        r.tenant = std::min<uint64_t>(draw.Below(13), 3);
        which = which / 4 * 4 + r.tenant;
      }
      Text& chat = conversations[which];
      if (chat.tokens > kLongestChat) chat = Text();
      if (chat.tokens == 0) chat = systems[which % kSystemPrompts];
      Grow(&chat, draw.Length(kQuestion), &next_piece);
      text = chat;
      Grow(&chat, r.output_tokens, &next_piece);
    }
    r.input_tokens = text.tokens;
    r.pieces = std::move(text.pieces);
  }
  return out;
}

}  // namespace kvasir
