// Compiled programs on disk, so that a device's compiler runs once for each version of driver and source.
#pragma once

#include <string>

namespace clblast_backend {

class ProgramCache {
  public:
    // key: everything that the result depends on.
    explicit ProgramCache(const std::string & key);
    // Empty if it is not there, or not whole.
    std::string read() const;
    // Appears under its name when it is whole; failures only cost time later.
    void write(const std::string & binary) const;

  private:
    std::string path_;
};

}  // namespace clblast_backend
