// Models whose layers other machines hold: ggml's RPC backend, with an end to what would never end.
//
// Where a server goes away, an assertion fails in ggml on the thread that talks to it, and whoever waits for
// an answer waits for ever. So nothing of ours waits there: calls run on threads of their own, which are
// given up with the server, as an engine's thread is.

#pragma once

#include "internal.h"

#include "ggml-backend.h"

#include <functional>
#include <mutex>
#include <vector>

namespace kollama {

class engine;

// Those of one model.
class servers : public std::enable_shared_from_this<servers> {
  public:
    // "host:port" each. Throws REMOTE, ARGUMENT, or LOAD without the RPC library.
    static std::shared_ptr<servers> connect(const std::vector<std::string> & endpoints);

    // Those of every server, in order.
    const std::vector<ggml_backend_dev_t> & devices() const { return devices_; }

    // Runs f on another thread and returns once it has ended; throws what it threw. Throws REMOTE once a server
    // is lost: f goes on no further then, so it must own what it uses. meanwhile is called every 20 ms; where it
    // returns false for some seconds, f is given up too: ABORTED.
    void call(std::function<void()> f, const std::function<bool()> & meanwhile = nullptr);

    // The engines that wait for these servers: each is abandoned when one is lost.
    void add(const std::shared_ptr<engine> & engine);

    bool        uses(const std::string & endpoint) const;
    bool        is_lost() const { return lost_; }
    std::string reason() const; // once lost

    // Has the system look after the connections: a machine that is switched off says nothing more.
    void keep_alive() const;

    // From ggml's abort callback: does not return on a thread that talks to a server.
    static void on_failed_assertion(const char * message);

    struct endpoint {
        std::string name;        // as it was given
        uint32_t    address = 0; // IPv4, network order; 0: unknown
        uint16_t    port    = 0; // network order
    };

  private:
    void lose(const std::string & reason);

    std::vector<endpoint>              endpoints_;
    std::vector<ggml_backend_dev_t>    devices_;
    std::atomic<bool>                  lost_{ false };
    mutable std::mutex                 mutex_;
    std::string                        reason_;
    std::vector<std::weak_ptr<engine>> engines_;
};

// f, by way of the servers where there are any.
template <class F> void call_on(const std::shared_ptr<servers> & remote, F && f) {
    if (remote) {
        remote->call(std::forward<F>(f));
    } else {
        f();
    }
}

} // namespace kollama
