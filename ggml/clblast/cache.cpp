#include "cache.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

namespace clblast_backend {

namespace {

// FNV-1a (draft-eastlake-fnv), 64 bits: for file names, not for security.
uint64_t hash(const std::string & text) {
    uint64_t h = 0xcbf29ce484222325;
    for (const unsigned char c : text) h = (h ^ c) * 0x100000001b3;
    return h;
}

std::string hex(uint64_t h) {
    char name[17];
    std::snprintf(name, sizeof(name), "%016llx", (unsigned long long) h);
    return name;
}

std::filesystem::path folder() {
    const auto variable = [](const char * name) -> std::string {
        const char * value = std::getenv(name);
        return value != nullptr ? value : "";
    };
    if (const auto own = variable("GGSERVE_CACHE"); !own.empty()) return std::filesystem::path(own) / "clblast";
#ifdef _WIN32
    if (const auto local = variable("LOCALAPPDATA"); !local.empty()) {
        return std::filesystem::path(local) / "ggserve" / "clblast";
    }
#else
    if (const auto xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) {
        return std::filesystem::path(xdg) / "ggserve" / "clblast";
    }
    if (const auto home = variable("HOME"); !home.empty()) {
        return std::filesystem::path(home) / ".cache" / "ggserve" / "clblast";
    }
#endif
    return {};
}

}  // namespace

ProgramCache::ProgramCache(const std::string & key) {
    const auto at = folder();
    if (!at.empty()) path_ = (at / (hex(hash(key)) + ".bin")).string();
}

std::string ProgramCache::read() const {
    std::ifstream file(path_, std::ios::binary);
    std::string all((std::istreambuf_iterator<char>(file)), {});
    // The last 16 bytes are a checksum: a driver may crash on a truncated binary.
    if (all.size() <= 16) return "";
    std::string binary = all.substr(0, all.size() - 16);
    return all.substr(all.size() - 16) == hex(hash(binary)) ? binary : "";
}

void ProgramCache::write(const std::string & binary) const {
    if (path_.empty()) return;
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
    const std::string part = path_ + "." + hex(std::random_device{}()) + ".part";
    {
        std::ofstream file(part, std::ios::binary);
        file << binary << hex(hash(binary));
        if (!file.good()) error = std::make_error_code(std::errc::io_error);
    }
    if (!error) std::filesystem::rename(part, path_, error);
    if (error) std::filesystem::remove(part, error);
}

}  // namespace clblast_backend
