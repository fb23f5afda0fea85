#include "server/text_endpoints.h"

#include <ctime>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "api/chat_prompt.h"
#include "openai/chat_messages.h"
#include "openai/field_reader.h"
#include "openai/json_text.h"
#include "server/reply.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

struct TextAnswer {
  Json body;
  std::vector<std::string> ignored;  // fields of the request
};
using TextResult = std::variant<TextAnswer, ApiError>;

/// 413
ApiError TooMuch(const std::string& message, const char* param) {
  return {.status = 413, .message = message, .param = param, .code = "too_large"};
}

/// The field `model`, as of completions: another than the served one is not there.
std::optional<ApiError> WrongModel(FieldReader* f, const std::string& served) {
  std::string model;
  f->String("model", &model);
  if (model.empty() || model == served) return {};
  return ModelNotFound(model, served);
}

TextResult TokenizeBody(const ServerState& state, const Json& body) {
  const LoadedModel& model = *state.model;
  FieldReader f(body);
  if (const auto error = WrongModel(&f, state.options.model_name); error) return *error;
  std::string text;
  bool add_special = true, special = true, pieces = false;
  f.String("content", &text);  // llama.cpp
  f.String("prompt", &text);   // vLLM
  f.Bool("add_special", &add_special);
  f.Bool("add_special_tokens", &add_special);
  f.Bool("parse_special", &special);
  f.Bool("with_pieces", &pieces);
  const bool with_pieces = pieces;
  bool strings = false;
  f.Bool("return_token_strs", &strings);
  const Json arguments = ReadTemplateArguments(&f);
  if (f.Get("messages") != nullptr) {
    const Json messages = ReadMessages(&f);
    if (!f.error()) {
      Result<std::string> chat =
          RenderChat(model, messages, arguments, std::time(nullptr), !add_special);
      if (chat.ok()) {
        text = std::move(*chat);
      } else {
        f.Fail("messages", "cannot be rendered: " + chat.error().message);
      }
    }
  } else if (f.Get("prompt") == nullptr && f.Get("content") == nullptr) {
    f.Fail("prompt", "is missing; send a prompt, a content, or messages");
  }
  if (f.error()) return *f.error();
  const char* source = f.Get("messages") != nullptr ? "messages"
                       : f.Get("prompt") != nullptr ? "prompt"
                                                    : "content";
  if (text.size() > kMostText) {
    return TooMuch(fmt::format("{} has {} bytes of text; {} are possible: send it in parts", source,
                               text.size(), kMostText),
                   source);
  }
  const Tokenizer& tokenizer = model.tokenizer();
  const std::vector<int32_t> tokens =
      tokenizer.Encode(text, {.add_special = add_special,
                              .add_eos = add_special && f.Get("messages") == nullptr,
                              .parse_special = special});
  if ((strings || with_pieces) && tokens.size() > kMostTokensWithText) {
    const char* field = with_pieces ? "with_pieces" : "return_token_strs";
    return TooMuch(fmt::format("{} is possible for {} tokens, and {} has {}: send it in parts, or "
                               "leave {} out",
                               field, kMostTokensWithText, source, tokens.size(), field),
                   field);
  }
  Json out = {{"count", tokens.size()}, {"max_model_len", model.plan().context}};
  Json list = Json::array(), texts = Json::array();
  for (const int32_t id : tokens) {
    const std::string piece =
        strings || with_pieces ? ReplaceInvalidUtf8(tokenizer.TokenBytes(id, true)) : "";
    if (with_pieces) {
      list.push_back({{"id", id}, {"piece", piece}});
    } else {
      list.push_back(id);
    }
    if (strings) texts.push_back(piece);
  }
  out["tokens"] = std::move(list);
  if (strings) out["token_strs"] = std::move(texts);
  return TextAnswer{std::move(out), f.Unknown()};
}

TextResult DetokenizeBody(const ServerState& state, const Json& body) {
  const LoadedModel& model = *state.model;
  FieldReader f(body);
  if (const auto error = WrongModel(&f, state.options.model_name); error) return *error;
  const Json* tokens = f.Get("tokens");
  std::vector<int32_t> ids;
  const int32_t vocab = model.tokenizer().vocab_size();
  if (tokens == nullptr || !tokens->is_array()) {
    f.Fail("tokens", "must be a list of token ids");
  } else if (tokens->size() > kMostTokens) {
    return TooMuch(fmt::format("tokens has {} ids; {} are possible: send them in parts",
                               tokens->size(), kMostTokens),
                   "tokens");
  } else {
    for (const Json& id : *tokens) {
      if (!id.is_number_integer() || id < 0 || id >= vocab) {
        f.Fail("tokens", fmt::format("must be a list of token ids from 0 to {}; {} is none",
                                     vocab - 1, JsonLine(id).substr(0, 50)));
        break;
      }
      ids.push_back(id.get<int32_t>());
    }
  }
  if (f.error()) return *f.error();
  const std::string text = ReplaceInvalidUtf8(model.tokenizer().Decode(ids, true));
  return TextAnswer{{{"prompt", text}, {"content", text}}, f.Unknown()};
}

/// Has a text worker answer.
void OnWorker(ServerState* state, HttpRequest&& request, const std::shared_ptr<ApiReply>& reply,
              const Tenant& caller,
              TextResult (*answer)(const ServerState& state, const Json& body)) {
  if (!reply->TakeRequest(caller)) return;
  const size_t bytes = request.body.size();
  if (bytes > kMostTextBody) {
    return reply->SendError(
        TooMuch(fmt::format("the body has {} bytes; {} are possible here: send the text in parts",
                            bytes, kMostTextBody),
                ""));
  }
  // What there is no room for is not counted.
  const auto no_memory = [state, reply, tenant = caller.id] {
    state->limiter.GiveBack(tenant, 1, 0, NowSeconds());
    reply->SendError(NoMemoryError());
  };
  const auto job = [state, answer, reply, no_memory, body = std::move(request.body)] {
    std::optional<ApiError> refusal;
    HttpHeaders headers = {{"Content-Type", "application/json"}};
    std::string text;
    try {
      TextResult result =
          ApiError{.message = "the body is not a JSON object", .param = {}, .code = {}};
      const Result<Json> json = ParseJson(body);
      if (!json.ok()) {
        result = ApiError{.message = json.error().message, .param = {}, .code = {}};
      } else if (json->is_object()) {
        result = answer(*state, *json);
      }
      if (const auto* error = std::get_if<ApiError>(&result); error != nullptr) {
        refusal = *error;
      } else {
        const auto& answered = std::get<TextAnswer>(result);
        text = JsonLine(answered.body);
        NameIgnored(answered.ignored, &headers);
      }
    } catch (const std::bad_alloc&) {
      return state->http->Post(no_memory);
    }
    state->http->Post(
        [reply, refusal, headers = std::move(headers), text = std::move(text)]() mutable {
          if (refusal) return reply->SendError(*refusal);
          reply->Send(200, std::move(headers), std::move(text));
        });
  };
  if (!state->workers->Run(bytes, job, caller.id)) no_memory();
}

}  // namespace

void AnswerTokenize(ServerState* state, HttpRequest&& request,
                    const std::shared_ptr<ApiReply>& reply, const Tenant& caller) {
  OnWorker(state, std::move(request), reply, caller, TokenizeBody);
}

void AnswerDetokenize(ServerState* state, HttpRequest&& request,
                      const std::shared_ptr<ApiReply>& reply, const Tenant& caller) {
  OnWorker(state, std::move(request), reply, caller, DetokenizeBody);
}

}  // namespace kvasir
