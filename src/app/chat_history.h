#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/loaded_model.h"
#include "base/result.h"

namespace kvasir {

/// The system message when none is given: small models answer better with a plain one than with
/// what their template puts in its place.
inline constexpr char kDefaultSystem[] = "You are a helpful assistant.";

/// A conversation as messages and, at the same time, as tokens. The tokens of earlier turns are
/// kept as the model saw and made them, so that the next turn's prompt starts with exactly what is
/// in the KV cache: tokenizing the text anew may cut it otherwise.
class ChatHistory {
 public:
  /// `model` must outlive this and have a chat template.
  explicit ChatHistory(const LoadedModel* model);

  /// Forgets all messages but the system message.
  void Clear();
  /// Sets or (empty) removes the system message; forgets the rest. Without a call there is
  /// kDefaultSystem, unless the model's template takes none.
  void SetSystem(const std::string& text);

  /// The system message; empty where there is none.
  std::string System() const;

  /// Adds the user's message; gives the prompt of the next reply. While that has more than `most`
  /// tokens the oldest turns are left out of it and of those that follow, but not the system
  /// message and this one: with these two alone it may have more. The history keeps them all.
  Result<std::vector<int32_t>> AddUser(const std::string& text, int64_t now,
                                       int32_t most = INT32_MAX);
  /// Turns, each a message and its reply, that prompts leave out.
  size_t left_out() const { return left_out_; }
  /// Adds the reply: its text, and its tokens without an end-of-generation token. Empty: the tokens
  /// do not stand for just this text (a stop string was cut off), and the next turn is tokenized
  /// anew.
  void AddReply(const std::string& text, const std::vector<int32_t>& tokens);
  /// Takes the user's last message back, when no reply came.
  void DropUser();

 private:
  bool HasSystem() const;
  size_t Turns() const;
  /// What a prompt has that leaves out so many turns.
  nlohmann::ordered_json Messages(size_t left_out) const;
  Status MakePrompt(size_t left_out, int64_t now);

  const LoadedModel* model_;
  bool default_system_ = true;
  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
  size_t left_out_ = 0, left_out_before_ = 0;  // now, and before the last message
  // What tokens_ stands for: the rendered text up to the end of the last reply.
  std::string text_;
  std::vector<int32_t> tokens_;
  // The prompt that AddUser gave last.
  std::string prompt_text_;
  std::vector<int32_t> prompt_tokens_;
};

}  // namespace kvasir
