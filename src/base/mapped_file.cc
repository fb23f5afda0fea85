#include "base/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace kvasir {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMostFiles = 256;  // that a signal handler can name; more may be mapped

}  // namespace

/// A file in memory. Does not move, so that the signal handler can look at it.
struct MappedFile::Mapping {
  std::string path;
  const uint8_t* data = nullptr;
  size_t size = 0;

  static inline std::atomic<const Mapping*> all[kMostFiles];

  void Register() const {
    for (auto& place : all) {
      const Mapping* nobody = nullptr;
      if (place.compare_exchange_strong(nobody, this)) return;
    }
  }
  ~Mapping() {
    for (auto& place : all) {
      const Mapping* self = this;
      if (place.compare_exchange_strong(self, nullptr)) break;
    }
    if (data != nullptr) ::munmap(const_cast<uint8_t*>(data), size);
  }

  static void OnSigbus(int signal, siginfo_t* info, void*) {
    const auto* address = static_cast<const uint8_t*>(info->si_addr);
    for (const auto& place : all) {
      const Mapping* m = place.load();
      if (m == nullptr || address < m->data || address >= m->data + m->size) continue;
      constexpr std::string_view kWhat =
          ": the file was cut or cannot be read any more while it is in use; put it back and start "
          "again\n";
      const iovec line[] = {{const_cast<char*>("kvasir: "), 8},
                            {const_cast<char*>(m->path.data()), m->path.size()},
                            {const_cast<char*>(kWhat.data()), kWhat.size()}};
      [[maybe_unused]] const ssize_t written = ::writev(STDERR_FILENO, line, 3);
      ::_exit(1);
    }
    ::signal(signal, SIG_DFL);  // not ours: it comes again, and ends the process as usual
  }
};

MappedFile::MappedFile(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
MappedFile::MappedFile(MappedFile&&) noexcept = default;
MappedFile& MappedFile::operator=(MappedFile&&) noexcept = default;
MappedFile::~MappedFile() = default;

std::span<const uint8_t> MappedFile::bytes() const { return {mapping_->data, mapping_->size}; }
const std::string& MappedFile::path() const { return mapping_->path; }

void MappedFile::EndProcessWhereLost() {
  struct sigaction action {};
  action.sa_sigaction = &Mapping::OnSigbus;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

Result<MappedFile> MappedFile::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return MakeError(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot open {}: {}",
                     path, std::strerror(errno));
  }
  struct stat st {};
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    return MakeError(ErrorCode::kIo, "{} is not a regular file", path);
  }
  auto mapping = std::make_unique<Mapping>();
  mapping->path = path;
  if (st.st_size > 0) {
    const auto size = static_cast<size_t>(st.st_size);
    void* p = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
      const int error = errno;
      ::close(fd);
      return MakeError(ErrorCode::kIo, "cannot map {}: {}", path, std::strerror(error));
    }
    mapping->data = static_cast<const uint8_t*>(p);
    mapping->size = size;
    mapping->Register();
  }
  ::close(fd);
  return MappedFile(std::move(mapping));
}

void MappedFile::DropPages(size_t offset, size_t size) const {
  // Only whole pages inside the range: its neighbours' bytes stay.
  const size_t begin = (offset + kPage - 1) / kPage * kPage;
  const size_t end =
      offset + size == mapping_->size ? mapping_->size : (offset + size) / kPage * kPage;
  if (begin < end)
    ::madvise(const_cast<uint8_t*>(mapping_->data) + begin, end - begin, MADV_DONTNEED);
}

void MappedFile::WillNeed(size_t offset, size_t size) const {
  const size_t begin = offset / kPage * kPage;
  if (size > 0) {
    ::madvise(const_cast<uint8_t*>(mapping_->data) + begin, offset + size - begin, MADV_WILLNEED);
  }
}

}  // namespace kvasir
