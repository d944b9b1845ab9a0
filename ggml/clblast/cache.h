// Cache of compiled programs on disk: the compiler runs once for each version of driver and source.
#pragma once

#include <string>

namespace clblast_backend {

class ProgramCache {
  public:
    // key: everything that the compiled program depends on.
    explicit ProgramCache(const std::string & key);
    // Empty if the file is missing or damaged.
    std::string read() const;
    // The file gets its name when it is complete. Failures are ignored: they only cost time later.
    void write(const std::string & binary) const;

  private:
    std::string path_;
};

}  // namespace clblast_backend
