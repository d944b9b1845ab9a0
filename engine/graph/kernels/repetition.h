// What a stream repeats, for engine/sampling: counts of its last tokens, and the repetitions that DRY penalises.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

namespace ggserve::sampling {

// An edited logit stays a number that `block_maxima` would accept.
inline float capped(float x) { return std::min(x, std::numeric_limits<float>::max()); }

// A token's logit; null if it is no candidate. `ids` ascends; null: the index is the id.
inline float *logit_of(float *x, const int32_t *ids, size_t n, int32_t token) {
    if (!ids) return x + token;
    const int32_t *place = std::lower_bound(ids, ids + n, token);
    return place != ids + n && *place == token ? x + (place - ids) : nullptr;
}

// Penalties for each distinct token among the last `size` (0: all).
struct Window {
    size_t size = 0;
    float repeat = 1, frequency = 0, presence = 0;
    std::vector<int32_t> ids, counts;

    void add(int32_t token) {
        if (size && ring.size() == size) {
            forget(ring[oldest]);
            ring[oldest] = token;
            oldest = (oldest + 1) % size;
        } else if (size) {
            ring.push_back(token);
        }
        const auto [place, is_new] = places.try_emplace(token, ids.size());
        if (is_new) {
            ids.push_back(token);
            counts.push_back(1);
        } else {
            counts[place->second]++;
        }
    }

    void apply(float *x, const int32_t *candidates, size_t n) const {
        for (size_t i = 0; i < ids.size(); i++) {
            float *logit = logit_of(x, candidates, n, ids[i]);
            if (!logit) continue;
            const float y = *logit > 0 ? *logit / repeat : *logit * repeat;
            *logit = capped(y - (float(counts[i]) * frequency + presence));
        }
    }

  private:
    std::vector<int32_t> ring;
    size_t oldest = 0;
    std::unordered_map<int32_t, size_t> places;

    void forget(int32_t token) {
        const size_t place = places[token];
        if (--counts[place]) return;
        ids[place] = ids.back();
        counts[place] = counts.back();
        places[ids[place]] = place;
        places.erase(token);
        ids.pop_back();
        counts.pop_back();
    }
};

// DRY ("don't repeat yourself": p-e-w 2024, text-generation-webui pull 5677), by llama.cpp's rules: a token that
// would lengthen a repetition of m >= allowed_length tokens loses multiplier x base^(m - allowed_length). A
// repetition reaches back to the last breaker at most, and a breaker of one token is never penalised.
struct Dry {
    double multiplier = 0, base = 1.75;
    size_t allowed_length = 2, last_n = 64;  // last_n 0: all
    std::vector<int32_t> ids;                // what `find` leaves: tokens that lose something, and how much
    std::vector<float> losses;

    void add_breaker(const int32_t *tokens, size_t n) { breakers[tokens[0]].emplace_back(tokens + 1, tokens + n); }

    void add(int32_t token) {
        if (last_n && history.size() >= 2 * last_n) history.erase(history.begin(), history.end() - (last_n - 1));
        history.push_back(token);
    }

    void find() {
        ids.clear();
        losses.clear();
        const size_t n = last_n ? std::min(last_n, history.size()) : history.size();
        if (n <= allowed_length) return;
        const size_t limit = since_breaker(n);
        if (limit < allowed_length) return;
        count_repeats(n);
        lengths.clear();
        for (size_t k = 1; k < n; k++) {  // the token before place k once followed what the text now ends with
            const size_t length = std::min(repeats[k], limit);
            if (length < allowed_length) continue;
            size_t &longest = lengths[back(k - 1)];
            longest = std::max(longest, length);
        }
        // The greatest power that a float holds, as in llama.cpp.
        const double most = base > 1.000001 ? std::floor(88.7228391 / std::log(base)) : 0;
        for (const auto &[token, length] : lengths) {
            if (breaks_alone(token)) continue;
            double exponent = double(length - allowed_length);
            if (most > 0) exponent = std::min(exponent, most);
            ids.push_back(token);
            losses.push_back(float(std::clamp(multiplier * std::pow(base, exponent), -1e30, 1e30)));
        }
    }

    void apply(float *x, const int32_t *candidates, size_t n) const {
        for (size_t i = 0; i < ids.size(); i++)
            if (float *logit = logit_of(x, candidates, n, ids[i])) *logit = capped(*logit - losses[i]);
    }

  private:
    std::vector<int32_t> history;  // at least the last `last_n`
    std::vector<size_t> repeats;
    std::unordered_map<int32_t, size_t> lengths;
    std::unordered_map<int32_t, std::vector<std::vector<int32_t>>> breakers;  // first token: the others

    int32_t back(size_t i) const { return history[history.size() - 1 - i]; }

    // Tokens after the last breaker.
    size_t since_breaker(size_t n) const {
        for (size_t i = 0; i < n; i++) {
            const auto place = breakers.find(back(i));
            if (place == breakers.end()) continue;
            ptrdiff_t longest = -1;
            for (const std::vector<int32_t> &rest : place->second) {
                const size_t m = rest.size();
                if (m > i || ptrdiff_t(m) <= longest) continue;
                size_t same = 0;
                while (same < m && rest[same] == back(i - same - 1)) same++;
                if (same == m) longest = ptrdiff_t(m);
            }
            if (longest >= 0) return i - size_t(longest);
        }
        return n;
    }

    // repeats[k]: how many tokens before and at place k from the end are those that the text ends with (the
    // Z-function of the reversed text; Gusfield 1997, section 1.4).
    void count_repeats(size_t n) {
        repeats.assign(n, 0);
        size_t left = 0, end = 0;  // of the match that reaches farthest
        for (size_t k = 1; k < n; k++) {
            size_t m = k < end ? std::min(end - k, repeats[k - left]) : 0;
            while (k + m < n && back(m) == back(k + m)) m++;
            repeats[k] = m;
            if (k + m > end) left = k, end = k + m;
        }
    }

    bool breaks_alone(int32_t token) const {
        const auto place = breakers.find(token);
        if (place == breakers.end()) return false;
        return std::any_of(place->second.begin(), place->second.end(), [](const auto &rest) { return rest.empty(); });
    }
};

}  // namespace ggserve::sampling
