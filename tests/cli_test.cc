// The program as people start it: exit codes, output, settings, memory.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "default_model.h"

namespace kvasir {
namespace {

const std::string kTiny = KVASIR_SOURCE_DIR "/tests/data/tiny/llama.gguf";

struct Output {
  int code = -1;
  std::string text;  // stdout, and stderr where the command says 2>&1
  /// An empty object where the output is no JSON.
  nlohmann::json json() const {
    const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, false);
    return parsed.is_discarded() ? nlohmann::json::object() : parsed;
  }
};

Output Shell(const std::string& command) {
  Output out;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  char buffer[4096];
  while (const size_t n = fread(buffer, 1, sizeof buffer, pipe)) out.text.append(buffer, n);
  const int status = pclose(pipe);
  out.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return out;
}

/// Runs the program in a shell.
Output Kvasir(const std::string& arguments, const std::string& before = "") {
  return Shell(before + " " KVASIR_BINARY " " + arguments);
}

/// What it says on stderr.
std::string Said(const std::string& arguments, const std::string& before = "") {
  return Kvasir(arguments + " 2>&1 >/dev/null </dev/null", before).text;
}

std::string Quiet(const std::string& arguments) { return arguments + " 2>/dev/null </dev/null"; }

class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() / ("kvasir-cli-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }
  std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(CommandLine, WhatCannotBeWrittenIsAnError) {
  for (const std::string& command :
       std::vector<std::string>{"show " + kTiny, "plan " + kTiny, "--help", "bench batch --help",
                                "--version", "run " + kTiny + " -p x --ctx 64 -n 4"}) {
    const Output full = Kvasir(command + " 2>&1 >/dev/full </dev/null");
    EXPECT_EQ(full.code, 1) << command;
    EXPECT_NE(full.text.find("cannot write to standard output: No space left"), std::string::npos)
        << full.text;
  }
  const Folder folder;
  const std::string errors = folder.Write("errors", "");
  Kvasir("show " + kTiny + " 2>" + errors + " | true");
  EXPECT_EQ(std::filesystem::file_size(errors), 0u) << "a closed pipe is no error";
  const std::string in = folder.Write("in.jsonl", "");
  const Output batch = Kvasir("batch " + kTiny + " " + in + " /dev/full 2>&1");
  EXPECT_EQ(batch.code, 1);
  EXPECT_NE(batch.text.find("/dev/full is not a regular file"), std::string::npos) << batch.text;
}

TEST(CommandLine, AFileThatCannotBeWrittenIsSaidBeforeTheWork) {
  for (const std::string& command : std::vector<std::string>{
           "simulate --workload chats --requests 100000 --csv", "simulate --workload chats --plot",
           "bench serve --url http://127.0.0.1:1 --concurrency 1 --plot",
           "bench serve --url http://127.0.0.1:1 --concurrency 1 --save-requests",
           "bench batch " + kTiny + " --pp 8 --tg 8 --profile"}) {
    const Output out = Kvasir(command + " /nonexistent/file 2>&1");
    EXPECT_EQ(out.code, 1) << command;
    EXPECT_EQ(out.text, "kvasir: cannot write /nonexistent/file: No such file or directory\n");
  }
}

TEST(CommandLine, ATextThatNoContextHoldsIsNamedWithItsSizeAndTheLimit) {
  const Folder folder;
  const std::string file = folder.Write("large", std::string(1 << 20, 'x'));
  const std::string run = "run " + kTiny + " --raw -n 1 -f " + file;
  const std::string said = Said(run);
  EXPECT_NE(said.find(file + " has 1048576 bytes; the context of 64 tokens holds "),
            std::string::npos)
      << said;
}

TEST(CommandLine, OneAnswerIsToldOfNoCommandsOfAChat) {
  const std::string said = Said("run " + kTiny + " --raw -p x --ctx 16 --ignore-eos");
  EXPECT_NE(said.find("[the context of 16 tokens is full; --ctx makes it larger]"),
            std::string::npos)
      << said;
}

TEST(CommandLine, AClosedPipeIsNoInterruption) {
  const Output out = Shell("{ { " KVASIR_BINARY " run " + kTiny +
                           " --raw -p x --ctx 100000 -n 99000 --ignore-eos </dev/null; "
                           "echo code $? >&2; } | head -c 1 >/dev/null; } 2>&1");
  EXPECT_NE(out.text.find("code 0\n"), std::string::npos) << out.text;
  EXPECT_EQ(out.text.find("[stopped]"), std::string::npos) << out.text;
}

TEST(CommandLine, EverySubcommandHasHelp) {
  EXPECT_EQ(Kvasir("--help").code, 0);
  EXPECT_NE(Kvasir("--version").text.find("kvasir "), std::string::npos);
  EXPECT_EQ(Kvasir("help").text, Kvasir("--help").text);
  EXPECT_EQ(Kvasir("help bench batch").text, Kvasir("bench batch --help").text);
  for (const char* name :
       {"run", "explain", "plan", "simulate", "batch", "bench batch", "bench kernel", "show",
        "tokenize", "perplexity", "doctor", "completion"}) {
    const Output help = Kvasir(std::string(name) + " --help");
    EXPECT_EQ(help.code, 0) << name;
    EXPECT_NE(help.text.find("--help"), std::string::npos);
  }
}

TEST(CommandLine, ExitCodesTellWhoseFaultItIs) {
  EXPECT_EQ(Kvasir(Quiet("")).code, 2);
  EXPECT_EQ(Kvasir(Quiet("nonsense")).code, 2);
  EXPECT_EQ(Kvasir(Quiet("run --no-such-flag")).code, 2);
  EXPECT_EQ(Kvasir(Quiet("run --temp warm")).code, 2);
  EXPECT_EQ(Kvasir(Quiet("run no-such-model -p x")).code, 1);
  for (const std::string& wrong :
       std::vector<std::string>{"run " + kTiny + " -p x --temp -1",
                                "run " + kTiny + " -p x --kv-dtype foo",
                                "run " + kTiny + " -p x --threads -1",
                                "run " + kTiny + " -p x --block-tokens 17",
                                "run " + kTiny + " -p x --ctx -5",
                                "run " + kTiny + " -p x --kv-memory 5parsec",
                                "serve " + kTiny + " --port 70000",
                                "serve " + kTiny + " --port 0 --log-level foo",
                                "serve " + kTiny + " --host 0.0.0.0",
                                "run " + kTiny + " -p x -n 0",
                                "run " + kTiny,  // nothing on stdin
                                "plan " + kTiny + " --kv-memory 1 --ctx 64",
                                "explain " + kTiny,
                                "explain " + kTiny + " -p x --step 0",
                                "tokenize " + kTiny + " --decode 999",
                                "simulate",
                                "simulate --workload none",
                                "simulate --workload chats --block-tokens 17",
                                "bench serve",
                                "bench serve --concurrency 1 --url ftp://a",
                                "bench kernel --format Q9",
                                "bench batch " + kTiny + " --pp 0",
                                "key add 'a b' --file /nonexistent",
                                "completion tcsh"})
    EXPECT_EQ(Kvasir(Quiet(wrong), "XDG_CONFIG_HOME=/nonexistent").code, 2) << wrong;
  EXPECT_EQ(Kvasir(Quiet("bench serve --concurrency 1 --url http://127.0.0.1:1")).code, 1);
  EXPECT_EQ(Kvasir(Quiet("run " + kTiny + " -p x -n 3")).code, 0);
}

TEST(CommandLine, AnErrorIsOneLineThatNamesWhatIsWrong) {
  for (const auto& [arguments, part] : {
           std::pair<std::string, std::string>{"run no-such-model -p x", "no-such-model"},
           {"run " + kTiny + " -p x --kv-dtype q3", "q3"},
           {"run " + kTiny + " -p x --kv-memory 5parsec", "5parsec"},
           {"run " + kTiny + " -p x --block-tokens 17", "17"},
           {"run " + kTiny + " -p x --threads -2", "-2"},
           {"run " + kTiny + " -p x --top-p 2", "--top-p is 2; it must be from 0 to 1"},
           {"run " + kTiny + " -p x --temp -1", "--temp is -1"},
           {"run " + kTiny + " -p x --repeat-penalty 0", "--repeat-penalty is 0"},
           {"run " + kTiny + " -p x --stop-token 999", "--stop-token is 999"},
           {"run " + kTiny + " -p x -n 0", "--max-tokens is 0; it must be 1 or more, or -1"},
           {"run " + kTiny + " -p x -t 010", "--threads is 010; write a decimal number"},
           {"run " + kTiny + " -p x --ctx 0x40", "--ctx is 0x40; write a decimal number"},
           {"bench batch " + kTiny + " -b 1,02", "--batch is 02; write a decimal number"},
           {"simulate --workload chats --requests -1", "--requests is -1; it must be a whole"},
           {"run " + kTiny + " -p x -n many", "--max-tokens is many; it must be a whole number"},
           {"run " + kTiny + " -p x --ctx 1.5", "--ctx is 1.5; it must be a whole number from"},
           {"run " + kTiny + " -p x --top-p high", "--top-p is high; it must be a number"},
           {"run " + kTiny + " -p x -ngl 99", "there is no -ngl: there is no GPU"},
           {"run " + kTiny + " -p x --ctx -1", "--ctx is -1; it must be 16 or more, or 0"},
           {"run " + kTiny + " -p x --seed 99999999999999999999",
            "it must be from 0 to 18446744073709551615"},
           {"run " + kTiny + " -p x --seed -2", "--seed is -2; it must be from 0 to"},
           {"simulate --workload chats --seed -1", "--seed is -1; it must be a whole number, 0"},
           {"run " + kTiny + " -p x --logit-bias 3", "logit-bias"},
           {"run " + kTiny + " -p x --json -c 70000000000", "ctx"},
           {"run " KVASIR_SOURCE_DIR "/README.md -p x", "README.md"},
           {"run " KVASIR_SOURCE_DIR "/tests/data/tiny/gemma3.gguf -p x", "--raw"},
           {"explain " + kTiny + " -p x --step 0", "0"},
           {"explain " + kTiny + " -p x --step 65", "65"},
           {"tokenize " + kTiny + " --decode 999", "999"},
           {"perplexity " + kTiny + " -f /nonexistent", "/nonexistent"},
           {"run " + kTiny + " -p x --ctx 11", "--ctx is 11; it must be 16 or more"},
           {"run " + kTiny + " -p x --kv-memory 1", "--kv-memory of 1 bytes holds 0 KV blocks"},
           {"bench serve --rate inf", "--rate is inf; for all requests at once use --concurrency"},
           {"run " + kTiny + " 'Tell a joke'", "a prompt goes after -p; see kvasir run --help"},
           {"run '' -p x", "is empty; name a GGUF file, or leave it out"},
           {"plan -m ''", "is empty; name a GGUF file, or leave it out"},
           {"batch '' /dev/null /dev/null", "MODEL is empty; name a GGUF file"},
           {"foo", "kvasir has no subcommand or option foo"},
           {"foo --json", "foo"},
           {"bench foo", "kvasir bench has no subcommand or option foo"},
           {"key", "subcommand"},
           {"batch " + kTiny + " /tmp /nonexistent/out", "/tmp is neither"},
           {"simulate --workload chats --pool-pct -5", "--pool-pct is -5; it must be from"},
           {"simulate --workload chats --pool-pct nan", "--pool-pct is nan"},
           {"simulate --workload chats --pool-pct 0", "--pool-pct is 0"},
           {"simulate --workload chats --pool -1", "--pool is -1; it must be"},
           {"simulate --workload chats --layers 0", "--layers is 0; it must be from 1 to 4096"},
           {"simulate --workload chats --head-dim 0", "--head-dim is 0"},
           {"simulate --workload chats --kv-heads -1", "--kv-heads is -1"},
           {"simulate --workload chats --kv-dtype foo", "--kv-dtype: "},
           {"simulate --workload chats --rate 1e-300", "--rate is 1e-300; it must be from"},
           {"simulate --workload chats --step-ms inf", "--step-ms is inf"},
           {"simulate --workload chats --prefill-tok-s 0", "--prefill-tok-s is 0"},
           {"simulate --workload chats --pool 9 --pool-pct 9",
            "--pool, --pool-pct and --kv-memory"},
           {"simulate --workload chats --pool 9 --kv-memory 1G", "use one of them"},
           {"simulate --workload chats --csv x --plot x", "x is both --csv and --plot; name two"},
       }) {
    const Output out = Kvasir(arguments + " 2>&1 >/dev/null </dev/null");
    EXPECT_NE(out.code, 0) << arguments;
    EXPECT_EQ(out.text.find('\n'), out.text.size() - 1) << arguments << ": " << out.text;
    EXPECT_NE(out.text.find(part), std::string::npos) << arguments << ": " << out.text;
  }
}

TEST(CommandLine, RunGivesTheDocumentedJson) {
  const Output out =
      Kvasir(Quiet("run " + kTiny + " --raw -p 'the hat' -n 5 --ignore-eos --json --logprobs 2"));
  ASSERT_EQ(out.code, 0);
  const nlohmann::json json = out.json();
  for (const char* key : {"text", "tokens", "finish_reason", "prompt_tokens", "cached_tokens",
                          "ttft_ms", "decode_tok_s"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["tokens"].size(), 5u);
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["logprobs"][0]["top"].size(), 2u);
}

TEST(CommandLine, APipeIsAPromptAndASeedGivesTheSameTextAgain) {
  const auto text = [](const std::string& flags) {
    return Kvasir(
               "run " + kTiny + " --raw -n 20 --temp 1 --ignore-eos -q " + flags + " 2>/dev/null",
               "echo 'the in' |")
        .text;
  };
  EXPECT_EQ(text("--seed 5"), text("--seed 5"));
  EXPECT_EQ(text("--seed 5"), text("--seed 5 --threads 1 --block-tokens 16 --step-tokens 3"));
  EXPECT_NE(text("--seed 5"), text("--seed 6"));
  EXPECT_EQ(Kvasir("run " + kTiny + " 2>/dev/null", "printf '' |").code, 1);
}

TEST(CommandLine, ASeedOfMinusOneIsANewOneEachTime) {
  const auto seed = [](const std::string& flags) {
    return Kvasir(Quiet("run " + kTiny + " --raw -p x -n 1 --json " + flags)).json()["seed"];
  };
  EXPECT_NE(seed("--seed -1"), seed("--seed -1"));
  EXPECT_NE(seed(""), seed(""));
  EXPECT_EQ(seed("--seed 18446744073709551615"), UINT64_MAX);
}

TEST(CommandLine, APipeComesAfterThePromptOfAFlag) {
  const Folder folder;
  const auto tokens = [&](const std::string& arguments, const std::string& before) {
    const nlohmann::json run =
        Kvasir("run " + kTiny + " --raw -n 8 --ignore-eos --json " + arguments + " 2>/dev/null",
               before)
            .json();
    return std::pair(run["prompt_tokens"], run["tokens"]);
  };
  const std::string file = folder.Write("text", "in the\n"), empty = folder.Write("empty", "");
  const auto want = tokens("-p 'the hat\n\nin the\n' </dev/null", "");
  ASSERT_GT(want.first, 4) << want.second;
  EXPECT_EQ(tokens("-p 'the hat'", "echo 'in the' |"), want);
  EXPECT_EQ(tokens("-p 'the hat' <" + file, ""), want);
  EXPECT_EQ(tokens("-p 'the hat' -f " + file + " </dev/null", ""), want);
  EXPECT_EQ(tokens("-p 'the hat' -f -", "echo 'in the' |"), want);
  EXPECT_EQ(tokens("-f -", "cat " + file + " |"), tokens("-f " + file + " </dev/null", ""));
  // Where there is nothing to add, the prompt is the flag's.
  const auto alone = tokens("-p 'the hat' </dev/null", "");
  EXPECT_NE(alone, want);
  EXPECT_EQ(tokens("-p 'the hat' <" + empty, ""), alone);
  EXPECT_EQ(tokens("-p 'the hat' <&-", ""), alone);
  // A pipe that is open and has nothing, as of a program that starts this one.
  const std::string open = "mkfifo " + folder.path() + "/open; exec 3<>" + folder.path() + "/open;";
  EXPECT_EQ(tokens("-p 'the hat' <&3", open), alone);
}

TEST(CommandLine, WhatKubernetesSetsForAServiceIsNoSetting) {
  // Never listens: there is no such certificate.
  const std::string serve = "serve " + kTiny + " --tls-cert /nonexistent --tls-key /nonexistent";
  const std::string said = Said(serve,
                                "KVASIR_PORT=tcp://10.96.3.4:8000 KVASIR_PORT_8000_TCP_PROTO=tcp "
                                "KVASIR_SERVICE_HOST=10.96.3.4 XDG_CONFIG_HOME=/nonexistent");
  EXPECT_NE(said.find("KVASIR_PORT=tcp://10.96.3.4:8000 is Kubernetes'"), std::string::npos)
      << said;
  EXPECT_NE(said.find("certificate /nonexistent"), std::string::npos) << said;
  EXPECT_EQ(said.find("KVASIR_SERVICE_HOST"), std::string::npos) << said;
  EXPECT_EQ(said.find("KVASIR_PORT_8000"), std::string::npos) << said;
}

TEST(CommandLine, AValueThatIsRefusedIsSaidToBeFromTheEnvironmentOrTheFile) {
  const Folder folder;
  const std::string file = folder.Write("c.toml", "threads = -1\n");
  const std::string run = "run " + kTiny + " -p x";
  EXPECT_NE(Said(run, "KVASIR_THREADS=-1").find("(--threads is from KVASIR_THREADS)"),
            std::string::npos);
  EXPECT_NE(Said(run, "KVASIR_THREADS=010").find("(--threads is from KVASIR_THREADS)"),
            std::string::npos);
  EXPECT_NE(Said(run + " --config " + file).find("(--threads is from " + file + ")"),
            std::string::npos);
  EXPECT_EQ(Said(run + " -t -1", "KVASIR_THREADS=1 KVASIR_CTX=-1").find("from KVASIR"),
            std::string::npos);
}

TEST(CommandLine, AClosedStdoutIsAnErrorAndNoOtherFileIsWrittenInItsPlace) {
  const Folder folder;
  const std::string in = folder.Write(
      "in.jsonl", "{\"custom_id\": \"a\", \"url\": \"/v1/completions\", \"body\": {}}\n");
  const std::string out = folder.path() + "/out.jsonl";
  EXPECT_EQ(Kvasir("batch " + kTiny + " " + in + " " + out + " --json >&- 2>&- <&-").code, 1);
  std::ifstream answers(out);
  for (std::string line; std::getline(answers, line);)
    EXPECT_TRUE(line.starts_with("{\"id\":\"batch_req_")) << line;
  EXPECT_EQ(Kvasir("show " + kTiny + " >&- 2>/dev/null").code, 1);
}

TEST(CommandLine, AVariableThatNoOptionHasIsNamed) {
  const std::string said = Said("plan " + kTiny, "KVASIR_CXT=32 KVASIR_KVTYPE=f16 KVASIR_RATE=1");
  EXPECT_NE(said.find("KVASIR_CXT"), std::string::npos) << said;
  EXPECT_NE(said.find("KVASIR_KVTYPE"), std::string::npos) << said;
  EXPECT_EQ(said.find("KVASIR_RATE"), std::string::npos) << "an option of another subcommand";
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_EQ(Said("plan " + kTiny, "KVASIR_ISA=scalar KVASIR_REQUIRE_MODEL=1"), "");
}

TEST(CommandLine, AContextThatTheModelWasNotTrainedForIsSaid) {
  const std::string warning = "--ctx 128 is above the 64 tokens that the model was trained for";
  for (const std::string& command :
       {"plan " + kTiny, "run " + kTiny + " -q -n 1 -p x", "explain " + kTiny + " -p x --step 3"}) {
    EXPECT_NE(Said(command + " --ctx 128").find(warning), std::string::npos) << command;
    EXPECT_EQ(Said(command + " --ctx 64").find("trained"), std::string::npos) << command;
  }
}

TEST(CommandLine, MoreThreadsThanProcessorsAreSaid) {
  const std::string run = "run " + kTiny + " -q -n 1 -p -0x10 --raw --threads ";
  EXPECT_NE(Said(run + "1000").find("kvasir: --threads 1000 is above the "), std::string::npos);
  EXPECT_EQ(Said(run + "1").find("--threads"), std::string::npos);
}

TEST(CommandLine, NamesThatOtherProgramsHaveMeanTheSameHere) {
  const Folder folder;
  const std::string file = folder.Write("text", "the hat");
  const auto run = [](const std::string& flags) { return Kvasir(Quiet("run " + flags)).text; };
  EXPECT_EQ(run("-m " + kTiny + " -q --raw -f " + file + " --temperature 1 --seed 3 --n-predict 5"),
            run(kTiny + " -q --raw -p 'the hat' --temp 1 --seed 3 -n 5"));
  EXPECT_EQ(Kvasir(Quiet("plan -m " + kTiny + " --json --ctx-size 32")).json()["context"], 32);
  EXPECT_EQ(Kvasir(Quiet("plan -m " + kTiny + " --json --max-model-len 32")).json()["context"], 32);
}

TEST(CommandLine, FlagsCountOverEnvironmentOverFile) {
  const Folder folder;
  const std::string file = folder.Write("c.toml", "ctx = 48\n[plan]\nkv-dtype = \"f32\"\n");
  const auto plan = [&](const std::string& before, const std::string& flags) {
    return Kvasir(Quiet("plan " + kTiny + " --json " + flags), before).json();
  };
  EXPECT_EQ(plan("", "")["context"], 64);
  EXPECT_EQ(plan("", "--config " + file)["context"], 48);
  EXPECT_EQ(plan("", "--config " + file)["kv_dtype"], "f32");
  EXPECT_EQ(plan("KVASIR_CTX=32", "--config " + file)["context"], 32);
  EXPECT_EQ(plan("KVASIR_CTX=32", "-c 16 --config " + file)["context"], 16);
  EXPECT_EQ(plan("KVASIR_CONFIG=" + file, "")["context"], 48);
  for (const char* bad : {"nonsense = 1\n", "[plan]\nnonsense = 1\n", "[nonsense]\n",
                          "ctx = \"many\"\n", "ctx = \n", "ctx = []\n", "no-pin = []\n"}) {
    const Output out =
        Kvasir("plan " + kTiny + " --config " + folder.Write("bad.toml", bad) + " 2>&1");
    EXPECT_EQ(out.code, 2) << bad;
    EXPECT_NE(out.text.find("bad.toml"), std::string::npos) << out.text;
  }
}

TEST(CommandLine, SubcommandsOfSubcommandsHaveTheSameSettings) {
  const Folder folder;
  const auto config = [&](const std::string& text) {
    return " --config " + folder.Write("c.toml", text);
  };
  const std::string batch = "bench batch " + kTiny + " --pp 8 --tg 8 --json";
  const auto dtype = [&](const std::string& before, const std::string& more) {
    return Kvasir(Quiet(batch + more), before).json()["kv_dtype"];
  };
  EXPECT_EQ(dtype("", ""), "bf16");
  EXPECT_EQ(dtype("KVASIR_KV_DTYPE=f32", ""), "f32");
  EXPECT_EQ(dtype("", config("kv-dtype = \"f16\"\n")), "f16");
  EXPECT_EQ(dtype("", config("kv-dtype = \"f16\"\n[bench.batch]\nkv-dtype = \"int8\"\n")), "int8");
  EXPECT_EQ(dtype("KVASIR_KV_DTYPE=f32", config("[bench.batch]\nkv-dtype = \"int8\"\n")), "f32");
  EXPECT_EQ(dtype("", config("[bench.kernel]\nkv-dtype = [\"int8\", \"f32\"]\n")), "bf16");
  // A list is fit for this one alone, and no other minds it.
  const auto r = Kvasir(Quiet("plan " + kTiny + " --json"), "KVASIR_RATE=1,2 KVASIR_ROWS=1,2");
  EXPECT_EQ(r.code, 0) << r.text;
  EXPECT_EQ(Kvasir(Quiet("key add a --json" +
                         config("[key.add]\nfile = \"" + folder.path() + "/k.toml\"\n")))
                .json()["file"],
            folder.path() + "/k.toml");
  for (const auto& [text, part] :
       {std::pair<std::string, std::string>{"[bench.batch]\nnonsense = 1\n", "bench.batch"},
        {"[bench]\npp = 1\n", "pp is not an option of bench"},
        {"[bench.nonsense]\n", "[bench.nonsense]"},
        {"[bench.batch]\nthreads = \"many\"\n", "threads"}}) {
    const Output out = Kvasir(batch + config(text) + " 2>&1");
    EXPECT_EQ(out.code, 2) << text;
    EXPECT_NE(out.text.find(part), std::string::npos) << out.text;
  }
  const Output bad = Kvasir("plan " + kTiny + " 2>&1", "KVASIR_CTX=many");
  EXPECT_EQ(bad.code, 2);
  EXPECT_NE(bad.text.find("KVASIR_CTX"), std::string::npos) << bad.text;
  EXPECT_NE(Kvasir("bench batch --help").text.find("KVASIR_KV_DTYPE"), std::string::npos);
}

TEST(CommandLine, WhatHasAnotherMeaningIsSetByItsOwnTableAlone) {
  const Folder folder;
  const std::string profile = folder.Write("p.json", "kept");
  const std::string bench = Quiet("bench batch " + kTiny + " --pp 8 --tg 8 --json");
  EXPECT_EQ(Kvasir(bench, "KVASIR_PROFILE=" + profile).code, 0);
  EXPECT_EQ(std::filesystem::file_size(profile), 4u) << "written over by who does not read it";
  const std::string config =
      folder.Write("c.toml", "[bench.batch]\nprofile = \"" + profile + "\"\n");
  EXPECT_EQ(Kvasir(bench + " --config " + config).code, 0);
  EXPECT_GT(std::filesystem::file_size(profile), 4u);
}

TEST(CommandLine, AVariableOfAnotherSubcommandChangesNothing) {
  const Folder folder;
  const std::string others = "KVASIR_FILE=" + folder.Write("other", "x y z") +
                             " KVASIR_WINDOW=7 KVASIR_DECODE=1,2 KVASIR_KV_MEMORY=1M "
                             "XDG_CONFIG_HOME=" +
                             folder.path();
  const std::string mine = folder.Write("mine", "the hat");
  for (const std::string& command : std::vector<std::string>{
           "tokenize " + kTiny + " -p 'the hat'", "tokenize " + kTiny + " <" + mine,
           "simulate --workload chats --requests 9 --pool 900 --json | grep -v us_per_step"}) {
    const Output alone = Kvasir(command + " 2>&1");
    EXPECT_EQ(Kvasir(command + " 2>&1", others).text, alone.text);
    EXPECT_EQ(alone.code, 0) << alone.text;
  }
  EXPECT_EQ(Kvasir("key add a --json", others).json()["file"], folder.path() + "/kvasir/keys.toml");
}

TEST(CommandLine, BatchTakesItsModelAsAllOthersDo) {
  const Folder folder;
  const std::string in = folder.Write("in.jsonl", ""), out = folder.path() + "/out.jsonl";
  const auto code = [&](const std::string& before, const std::string& more) {
    return Kvasir(Quiet("batch " + more + " --json"), before).code;
  };
  const std::string files = in + " " + out, model = " --model " + kTiny;
  EXPECT_EQ(code("", files + model), 0);
  EXPECT_EQ(code("KVASIR_MODEL=" + kTiny, files), 0);
  EXPECT_EQ(code("KVASIR_MODEL=none", kTiny + " " + files), 0);
  EXPECT_EQ(code("KVASIR_MODEL=none", files), 1);
  EXPECT_EQ(code("", files + " --config " +
                         folder.Write("c.toml", "[batch]\nmodel = \"" + kTiny + "\"\n")),
            0);
}

TEST(CommandLine, AFlagThatSaysNoMeansTheSameInEnvironmentAndFile) {
  const Folder folder;
  const std::string model = KVASIR_SOURCE_DIR "/tests/data/tiny/gemma3.gguf";  // has a BOS
  const auto tokens = [&](const std::string& before, const std::string& more) {
    return Kvasir(Quiet("tokenize " + model + " -p 'the <bos> hat' --json " + more), before)
        .json()["tokens"];
  };
  for (const std::string name : {"bos", "special"}) {
    const nlohmann::json with = tokens("", ""), without = tokens("", "--no-" + name);
    ASSERT_NE(with, without);
    const std::string variable = name == "bos" ? "KVASIR_NO_BOS=" : "KVASIR_NO_SPECIAL=";
    EXPECT_EQ(tokens(variable + "1", ""), without);
    EXPECT_EQ(tokens(variable + "0", ""), with);
    const auto file = [&](const char* value) {
      return "--config " + folder.Write("no.toml", "no-" + name + " = " + value + "\n");
    };
    EXPECT_EQ(tokens("", file("true")), without);
    EXPECT_EQ(tokens("", file("false")), with);
  }
  EXPECT_EQ(Kvasir(Quiet("doctor --json"), "KVASIR_NO_PROBE=1").json()["read_gb_s"], 0);
}

TEST(CommandLine, PerplexityTellsWhatItDidNotScore) {
  const Folder folder;
  const std::string perplexity =
      "perplexity " + kTiny + " -f " + folder.Write("text", "the hat in the hat and the hat");
  const int all = Kvasir(Quiet(perplexity + " --json")).json()["tokens"];
  ASSERT_GT(all, 7);
  EXPECT_EQ(Kvasir(Quiet(perplexity + " --json")).json()["window"], all) << "all of a short text";
  EXPECT_EQ(Said(perplexity + " --window 64"), "the first token of each window is not scored\n");
  const nlohmann::json cut = Kvasir(Quiet(perplexity + " --json --window 3")).json();
  EXPECT_EQ(cut["left_out"], all % 3);
  EXPECT_EQ(cut["scored"], all / 3 * 2);
  EXPECT_NE(Said(perplexity + " --window " + std::to_string(all - 1))
                .find(", nor are the last 1, too few for a window"),
            std::string::npos);
}

TEST(CommandLine, PerplexityBeginsWithBosWhereItIsAskedForOrSaysThatThereIsNone) {
  const Folder folder;
  const std::string text = " -f " + folder.Write("text", "the hat in the hat") + " --json";
  const auto tokens = [&](const std::string& model, const std::string& more) {
    return Kvasir(Quiet("perplexity " + model + text + more)).json().value("tokens", 0);
  };
  // Of which prompts begin so, or not.
  for (const std::string& model :
       {std::string(KVASIR_SOURCE_DIR "/tests/data/tiny/gemma3.gguf"), kTiny})
    EXPECT_EQ(tokens(model, " --bos"), tokens(model, "") + 1) << model;
  std::ifstream file(kTiny, std::ios::binary);
  std::string without((std::istreambuf_iterator<char>(file)), {});
  const std::string key = "tokenizer.ggml.bos_token_id";
  without.replace(without.find(key), key.size(), "tokenizer.ggml.sob_token_id");
  const std::string model = folder.Write("without.gguf", without);
  EXPECT_NE(Said("perplexity " + model + text + " --bos").find("has no BOS token; leave it out"),
            std::string::npos);
}

TEST(CommandLine, KeysAndSettingsThatCannotBeLookedForAreNotTakenForNone) {
  const Folder folder;
  const std::string config = folder.path() + "/kvasir";
  std::filesystem::create_directory(config);
  // Links to themselves: an error that not even root is spared.
  for (const char* name : {"keys.toml", "config.toml"}) {
    const std::string path = config + "/" + name;
    std::filesystem::create_symlink(path, path);
    for (const std::string listen : {"", " --host 0.0.0.0"}) {
      // Never listens, with or without keys: there is no such certificate.
      const Output out = Kvasir("serve " + kTiny + " --port 0 --tls-cert " + folder.path() +
                                    "/none --tls-key " + folder.path() + "/none 2>&1" + listen,
                                "XDG_CONFIG_HOME=" + folder.path());
      EXPECT_NE(out.code, 0);
      EXPECT_NE(out.text.find("cannot look for " + path + ": Too many levels"), std::string::npos)
          << out.text;
    }
    const Output add = Kvasir("key add a 2>&1", "XDG_CONFIG_HOME=" + folder.path());
    EXPECT_NE(add.code, 0);
    EXPECT_NE(add.text.find(path), std::string::npos) << add.text;
    std::filesystem::remove(path);
  }
}

TEST(CommandLine, ExplainShowPlanTokenizeDoctorGiveJson) {
  const nlohmann::json explain =
      Kvasir(Quiet("explain " + kTiny + " -p 'the hat in' --step 20 --upto 50 --json")).json();
  EXPECT_EQ(explain["step"], 20);
  EXPECT_EQ(explain["logits_equal"], true);
  for (const char* side : {"with_cache", "without_cache"}) {
    for (const char* key : {"projections", "attention_ops", "flops", "bytes_read", "ms"}) {
      EXPECT_TRUE(explain[side].contains(key)) << side << " " << key;
    }
  }
  EXPECT_EQ(explain["table"].size(), 3u);
  EXPECT_EQ(
      Kvasir(Quiet("explain " + kTiny + " -p 'the hat' --step 3 --upto 5 --json")).json()["step"],
      3);
  const auto last = [](const std::string& upto) {
    return Kvasir(Quiet("explain " + kTiny + " -p 'the hat' --step 3 --json " + upto))
        .json()["table"]
        .back()["step"];
  };
  EXPECT_EQ(last("--upto 17"), 17);
  EXPECT_EQ(last(""), 64) << "the context";
  EXPECT_NE(Said("explain " + kTiny + " -p x --step 3 --upto 65").find("--upto is 65, beyond the"),
            std::string::npos);
  EXPECT_LT(explain["with_cache"]["flops"], explain["without_cache"]["flops"]);
  const nlohmann::json plan = Kvasir(Quiet("plan " + kTiny + " --json")).json();
  for (const char* key :
       {"weights_bytes", "kv_bytes_per_token", "kv_capacity_tokens", "scratch_bytes"}) {
    EXPECT_GT(plan[key], 0) << key;
  }
  EXPECT_EQ(Kvasir(Quiet("show " + kTiny + " --json --tensors --metadata")).json()["architecture"],
            "llama");
  const nlohmann::json tokens = Kvasir(Quiet("tokenize " + kTiny + " -p 'the hat' --json")).json();
  EXPECT_EQ(tokens["tokens"].size(), tokens["count"]);
  std::string ids;
  for (const int id : tokens["tokens"]) ids += (ids.empty() ? "" : ",") + std::to_string(id);
  EXPECT_EQ(Kvasir(Quiet("tokenize " + kTiny + " --decode " + ids)).text, "the hat");
  EXPECT_GE(Kvasir(Quiet("doctor --json --no-probe")).json()["physical"], 1);
}

TEST(CommandLine, SimulateGivesTheDocumentedJson) {
  const auto r = Kvasir(Quiet("simulate --workload chats --requests 50 --json")).json();
  for (const char* key :
       {"requests", "prompt_tokens", "cached_tokens", "hit_rate", "kv_waste_pct", "preemptions",
        "evicted_blocks", "ttft_ms", "itl_ms", "steps", "scheduler_us_per_step"})
    EXPECT_TRUE(r.contains(key)) << key;
  EXPECT_EQ(r.value("requests", 0), 50);
  for (const char* key : {"p50", "p90", "p99"}) {
    EXPECT_TRUE(r["ttft_ms"].contains(key));
    EXPECT_TRUE(r["itl_ms"].contains(key));
  }
  const auto bounded = Kvasir(Quiet("simulate --workload flood --pool-pct 3 --baselines --json"));
  ASSERT_GT(bounded.json().value("refused", 0), 0) << "for the bound to leave out";
  EXPECT_LE(bounded.json().value("hit_rate", 1.0), bounded.json().value("belady_hit_rate", 0.0));
  EXPECT_LE(bounded.json().value("belady_hit_rate", 1.0), 0.8);
  EXPECT_NEAR(r.value("hit_rate", 0.0),
              r.value("cached_tokens", 0.0) / r.value("prompt_tokens", 1.0), 1e-3);
}

TEST(CommandLine, BenchBatchGivesARowForEachBatchAndAProfileThatSimulateReads) {
  const Folder folder;
  const std::string profile = folder.path() + "/profile.json";
  const auto bench = Kvasir(Quiet("bench batch --model " + kTiny +
                                  " --pp 24 --tg 8 -b 1,3 --json --profile " + profile))
                         .json();
  ASSERT_EQ(bench["rows"].size(), 2u) << bench;
  for (const auto& row : bench["rows"]) {
    EXPECT_EQ(row["pp"], 24);
    EXPECT_EQ(row["tg"], 8);
    for (const char* key : {"pp_tok_s", "tg_tok_s", "pp_limit_pct", "tg_limit_pct"})
      EXPECT_GT(row.value(key, 0.0), 0) << key;
  }
  EXPECT_EQ(bench["rows"][1]["batch"], 3);
  const auto r =
      Kvasir(Quiet("simulate --workload shared --requests 20 --json --profile " + profile)).json();
  EXPECT_EQ(r.value("requests", 0), 20) << r;
}

TEST(CommandLine, AShortBenchBatchHasTheLeastContextThatThereIs) {
  const Output out = Kvasir("bench batch " + kTiny + " --pp 2 --tg 2 --json 2>&1");
  EXPECT_EQ(out.code, 0) << out.text;
  EXPECT_EQ(out.json()["rows"].size(), 1u) << out.text;
}

TEST(CommandLine, BatchTakesAPipe) {
  const Folder folder;
  const std::string out = folder.path() + "/out.jsonl";
  const auto r =
      Kvasir("batch " + kTiny + " /dev/stdin " + out + " --json 2>/dev/null",
             R"(echo '{"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "x", )"
             R"("max_tokens": 1}}' |)")
          .json();
  EXPECT_EQ(r["requests"], 1) << r;
  EXPECT_EQ(r["failed"], 0) << r;
}

TEST(CommandLine, BenchKernelMeasuresWhatItIsAskedFor) {
  const auto bench = Kvasir(Quiet("bench kernel --inputs 256 --outputs 32 --rows 1,3 --format "
                                  "Q4_0,BF16 --kv-dtype int8 --context 40 --json"))
                         .json();
  for (const char* key : {"bandwidth_gb_s", "int8_gops", "float_gflops"})
    EXPECT_GT(bench.value(key, 0.0), 0) << key;
  std::map<std::string, int> count;
  for (const auto& row : bench["rows"]) {
    ++count[row["op"]];
    EXPECT_GT(row.value("us", 0.0), 0) << row;
  }
  EXPECT_EQ(count["matmul"], 4);
  EXPECT_EQ(count["attention, decode"], 2);
  EXPECT_EQ(count["attention, prefill"], 1);
}

TEST(CommandLine, CompletionOffersWhatMayComeNext) {
  const Folder folder;
  folder.Write("some.toml", "");
  const auto offered = [&](const std::vector<std::string>& words) {
    std::string list;
    for (const std::string& word : words) list += " '" + word + "'";
    const Output out = Shell("cd " + folder.path() + " && XDG_CACHE_HOME=/nonexistent bash -c \"" +
                             "source <(" KVASIR_BINARY " completion bash); COMP_WORDS=(kvasir" +
                             list + "); COMP_CWORD=" + std::to_string(words.size()) +
                             R"(; _kvasir; echo \${COMPREPLY[@]}" 2>&1)");
    return out.text.substr(0, out.text.find('\n'));
  };
  EXPECT_EQ(offered({"pl"}), "plan");
  EXPECT_EQ(offered({"bench", ""}), "batch kernel serve");
  EXPECT_EQ(offered({"key", "re"}), "remove");
  EXPECT_EQ(offered({"bench", "batch", "--bre"}), "--breakdown");
  EXPECT_EQ(offered({"batch", "--bre"}), "") << "an option of bench batch";
  EXPECT_EQ(offered({"key", "add", "x", "--max-r"}), "--max-running");
  EXPECT_EQ(offered({"run", "--kv-dtype", ""}), "bf16 f16 f32 int8");
  EXPECT_EQ(offered({"run", "--kv-dtype", "=", "i"}), "int8");
  EXPECT_EQ(offered({"bench", "batch", "--kv-dtype", "f"}), "f16 f32");
  EXPECT_EQ(offered({"serve", "--log-level", "w"}), "warn");
  EXPECT_EQ(offered({"simulate", "--workload", "s"}), "shared");
  EXPECT_EQ(offered({"simulate", "--policy", "l"}), "lru");
  EXPECT_EQ(offered({"serve", "--config", "so"}), "some.toml");
  EXPECT_EQ(offered({"completion", ""}), "bash zsh fish");
  EXPECT_EQ(offered({"run", "-n", ""}), "") << "a number";
  for (const std::string option : {"kv-dtype", "log-level", "workload", "policy", "no-pin"}) {
    const std::string line =
        Shell(KVASIR_BINARY " completion fish | grep -m1 -e '-l " + option + " '").text;
    EXPECT_EQ(line.find(" -x -a '") != std::string::npos, option != "no-pin") << line;
    EXPECT_EQ(line.find(" -r"), std::string::npos) << line;
  }
}

TEST(CommandLine, WithoutAKeyFileThereAreNoKeysYet) {
  const Folder folder;
  const std::string file = " --file " + folder.path() + "/keys.toml";
  const Output none = Kvasir("key list 2>&1" + file);
  EXPECT_EQ(none.code, 0);
  EXPECT_EQ(none.text, "no keys yet: kvasir key add NAME\n");
  EXPECT_EQ(Kvasir("key list --json" + file).json()["tenants"], nlohmann::json::array());
  const std::string name = Said("key add \"$(printf 'a\\nb')\"" + file);
  EXPECT_EQ(std::count(name.begin(), name.end(), '\n'), 1) << name;
  EXPECT_NE(name.find("\"a?b\" is no name"), std::string::npos) << name;
}

TEST(CommandLine, OfAKeyThatCouldNotBeToldItIsSaidHowToForgetIt) {
  const Folder folder;
  const std::string file = " --file " + folder.path() + "/keys.toml";
  for (const std::string json : {"", " --json"}) {
    for (int keys = 0; keys < 2; ++keys) {
      if (keys == 1) Kvasir(Quiet("key add alice" + file));
      const Output full = Kvasir("key add alice 2>&1 >/dev/full" + file + json);
      EXPECT_EQ(full.code, 1);
      const std::string command = full.text.substr(full.text.find("kvasir key remove ") + 7);
      EXPECT_EQ(Kvasir(Quiet(command.substr(0, command.find('\n')) + file)).code, 0) << full.text;
      EXPECT_EQ(Kvasir(Quiet("key list --json" + file)).json()["tenants"].size(),
                static_cast<size_t>(keys));
    }
    Kvasir(Quiet("key remove alice" + file));
  }
}

TEST(CommandLine, AKeyIsTakenBackByItsHash) {
  const Folder folder;
  const std::string file = " --file " + folder.path() + "/keys.toml";
  const auto keys = [&] {
    return Kvasir(Quiet("key list --json" + file)).json()["tenants"][0]["key_sha256_prefixes"];
  };
  Kvasir(Quiet("key add alice --max-running 3 --priority 7" + file));
  const std::string first = keys()[0];
  EXPECT_EQ(Kvasir(Quiet("key remove alice --key " + first + file)).code, 1) << "the only one";
  Kvasir(Quiet("key add alice" + file));
  ASSERT_EQ(keys().size(), 2u);
  const std::string list = Kvasir(Quiet("key list" + file)).text;
  for (const std::string& part : {std::string("running"), std::string("priority"), first})
    EXPECT_NE(list.find(part), std::string::npos) << list;
  EXPECT_EQ(Kvasir(Quiet("key remove alice --key no-hash" + file)).code, 2);
  EXPECT_EQ(Kvasir(Quiet("key remove alice --key ''" + file)).code, 2);
  EXPECT_EQ(Kvasir(Quiet("key remove alice --key 0000000000" + file)).code, 1);
  EXPECT_EQ(Kvasir(Quiet("key remove alice --key " + first + file)).code, 0);
  ASSERT_EQ(keys().size(), 1u);
  EXPECT_NE(keys()[0], first);
}

TEST(CommandLine, CompletionsNameEverySubcommandAndAreValidShell) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Output out = Kvasir(Quiet(std::string("completion ") + shell));
    EXPECT_EQ(out.code, 0);
    for (const char* name : {"run", "explain", "perplexity", "kv-dtype"})
      EXPECT_NE(out.text.find(name), std::string::npos);
  }
  EXPECT_EQ(Kvasir("completion bash | bash -n").code, 0);
}

TEST(CommandLine, TheInstructionSetIsForcedByTheEnvironment) {
  EXPECT_EQ(Kvasir(Quiet("doctor --json --no-probe"), "KVASIR_ISA=scalar").json()["isa"], "scalar");
  EXPECT_EQ(Kvasir(Quiet("doctor --no-probe"), "KVASIR_ISA=abacus").code, 2);
}

TEST(CommandLine, APoolThatCannotFitIsRefusedWithTheNumbers) {
  const Output pool = Kvasir("plan " + kTiny + " --kv-memory 900G 2>&1");
  EXPECT_EQ(pool.code, 1);
  EXPECT_NE(pool.text.find("MiB available"), std::string::npos) << pool.text;
}

TEST(CommandLine, PlanSizesAServerAsServeDoesAndCountsSequencesOfItsContext) {
  const auto plan = [](const std::string& flags) {
    return Kvasir(Quiet("plan " + kTiny + " --json --ctx 32 " + flags)).json();
  };
  const nlohmann::json run = plan(""), server = plan("--sequences 12");
  EXPECT_EQ(run["sequences_in_pool"], 1);
  EXPECT_EQ(server["sequences_in_pool"], 12);
  EXPECT_EQ(server["kv_blocks"], 12 * run["kv_blocks"].get<int>());
  EXPECT_GT(server["requests_bytes"], 0);
  EXPECT_GT(server["sequences_that_fit"], 12);
  EXPECT_EQ(plan("--kv-memory 10M")["sequences_in_pool"], (10 << 20) / run["kv_bytes"].get<int>());
  const std::string text = Kvasir(Quiet("plan " + kTiny + " --ctx 32 --sequences 12")).text;
  EXPECT_NE(text.find("for 12 contexts of 32"), std::string::npos) << text;
  EXPECT_NE(text.find(" sequences of 32 tokens"), std::string::npos) << text;
}

TEST(CommandLine, WhatIsAdvisedWhereAPoolDoesNotFitHelps) {
  // What is said of a size, and then of the one that this names.
  const auto again = [](const std::string& size, const std::string& before) {
    const std::string plan = "plan " + kTiny + " --kv-memory ", said = Said(plan + size);
    const size_t at = said.find(before);
    if (at == std::string::npos) return said;
    const size_t from = at + before.size();
    // Some of the memory that was available may have gone since.
    const std::string other = said.substr(from, said.find_first_of(" \n", from) - from);
    return Said(plan + (size == "1" ? other : std::to_string(std::stoull(other) / 2) + "K"));
  };
  EXPECT_EQ(again("900G", "lower --kv-memory to "), "");
  EXPECT_EQ(again("1", "raise it to "), "");
  const std::string lower = Said("plan " + kTiny + " --kv-memory 900G");
  EXPECT_EQ(lower.find("--ctx"), std::string::npos) << "no help: " << lower;
  const std::string raise = Said("plan " + kTiny + " --kv-memory 1");
  EXPECT_EQ(raise.find("--ctx"), std::string::npos) << "the shortest already: " << raise;
}

// Sanitizers need more address space than such a limit leaves: left out there by name.
TEST(CommandLine, WithinAnAddressSpaceLimitItServesOrRefusesWithTheNumbers) {
  for (int mib = 30; mib <= 90; mib += 5) {
    const Output out = Kvasir("run " + kTiny + " -p x -n 2 2>&1 </dev/null",
                              "ulimit -v " + std::to_string(mib * 1024) + ";");
    if (out.code == 0 || out.text.find("shared") != std::string::npos)
      continue;  // the loader's own
    EXPECT_EQ(out.code, 1) << mib << " " << out.text;
    EXPECT_NE(out.text.find("MiB"), std::string::npos) << mib << " " << out.text;
  }
}

std::string ReadSource(const std::string& path) {
  std::ifstream in(std::string(KVASIR_SOURCE_DIR "/") + path);
  EXPECT_TRUE(in.is_open()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Packaging, TheServiceRunsAsTheUserThatIsMadeForIt) {
  const std::string unit = ReadSource("packaging/kvasir.service");
  EXPECT_EQ(unit.find("DynamicUser"), std::string::npos) << "nobody could give it a key file";
  EXPECT_NE(unit.find("\nUser=kvasir\nGroup=kvasir\n"), std::string::npos);
  EXPECT_NE(ReadSource("packaging/kvasir.sysusers.conf").find("\nu kvasir - "), std::string::npos);
}

TEST(Packaging, TheSettingsFileHasEveryOptionOfServe) {
  const std::string file = "\n" + ReadSource("packaging/kvasir.toml");
  std::istringstream help(Kvasir(Quiet("serve --help")).text);
  int options = 0;
  for (std::string line; std::getline(help, line);) {
    const size_t dashes = line.find("--");
    if (dashes == std::string::npos ||
        line.find_first_not_of(" -,abcdefghijklmnopqrstuvwxyz") < dashes)
      continue;
    const std::string name = line.substr(dashes + 2, line.find_first_of(" ,", dashes) - dashes - 2);
    if (name == "help" || name == "config") continue;
    ++options;
    EXPECT_TRUE(file.find("\n" + name + " = ") != std::string::npos ||
                file.find("\n# " + name + " = ") != std::string::npos)
        << name;
  }
  EXPECT_GT(options, 25);
  EXPECT_NE(file.find("\nmodel = \"/var/cache/kvasir/models/"), std::string::npos)
      << "of the user that the service has";
}

TEST(Packaging, TheImageIsMadeWithoutWhatGitIgnores) {
  const std::string left_out = "\n" + ReadSource(".dockerignore");
  std::istringstream ignored(ReadSource(".gitignore"));
  for (std::string line; std::getline(ignored, line);) {
    // "/a/" of git is "a" here, and "a" of git "**/a".
    line = line[0] == '/' ? line.substr(1) : "**/" + line;
    if (line.ends_with('/')) line.pop_back();
    EXPECT_NE(left_out.find("\n" + line + "\n"), std::string::npos) << line;
  }
  EXPECT_NE(left_out.find("\n.git\n"), std::string::npos);
}

class DefaultModelCli : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_WITHOUT_DEFAULT_MODEL(); }
};

TEST_F(DefaultModelCli, ResidentMemoryIsWhatThePlanSaid) {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 170; ++i)
    text += "Entry " + std::to_string(i * 7919 % 1000) + ": the river carries boats. ";
  const std::string prompt = folder.Write("prompt.txt", text);
  for (const char* dtype : {"bf16", "int8"}) {
    const std::string flags = std::string(" --json -c 2048 --kv-dtype ") + dtype;
    const nlohmann::json plan = Kvasir(Quiet("plan" + flags)).json();
    // Until the context is full: 2,048 tokens in the cache.
    const nlohmann::json run =
        Kvasir("run --raw --ignore-eos" + flags + " 2>/dev/null < " + prompt).json();
    ASSERT_EQ(run["finish_reason"], "context") << run;
    const double planned = plan["total_bytes"], resident = run["resident_bytes"];
    EXPECT_LE(std::abs(resident - planned), 0.05 * planned)
        << dtype << ": planned " << planned << ", resident " << resident;
  }
}

TEST_F(DefaultModelCli, TheDefaultModelAnswersInTheTerminal) {
  const Output out = Kvasir(Quiet("run -p 'What is the capital of France?' -q"));
  EXPECT_EQ(out.code, 0);
  EXPECT_NE(out.text.find("Paris"), std::string::npos) << out.text;
}

}  // namespace
}  // namespace kvasir
