#include "servers.h"

#include "backend.h"
#include "crew.h"
#include "engine.h"

#include "ggml-rpc.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <set>
#include <thread>

#ifndef _WIN32
#    include <arpa/inet.h>
#    include <cerrno>
#    include <netdb.h>
#    include <netinet/in.h>
#    include <netinet/tcp.h>
#    include <sys/socket.h>
#    include <unistd.h>
#endif

namespace kollama {
namespace {

constexpr auto SLICE   = std::chrono::milliseconds(20);
constexpr auto GRACE   = std::chrono::milliseconds(500); // for a call that a lost server does not concern
constexpr auto STOPPED = std::chrono::seconds(3);        // for one that was told to stop

ggml_backend_reg_t rpc_reg() {
    return ggml_backend_reg_by_name("RPC");
}

// Every model's servers, and what is known of endpoints. Never destroyed: threads may come at any time.
struct registry {
    std::mutex                            mutex;
    std::condition_variable               lost;
    std::vector<std::weak_ptr<servers>>   all;
    // ggml keeps a connection by its endpoint's name for as long as anybody has memory there, which what was
    // given up has for ever. A name that it has not seen yet gets a new one.
    std::map<std::string, int>            n_lost;
};

registry & known() {
    static registry * instance = new registry;
    return *instance;
}

// ---- sockets -------------------------------------------------------------------------------------
// ggml has no way to ask for that of a connection: it is found among the process's descriptors.

#ifdef _WIN32

void resolve(servers::endpoint &, const std::string &, int) {}

template <class F> void for_each_socket(const servers::endpoint &, F &&) {}

void watch_over(int) {}

bool has_ended(int) {
    return true;
}

#else

void resolve(servers::endpoint & e, const std::string & host, int port) {
    addrinfo hints = {}, *found = nullptr;
    hints.ai_family   = AF_INET; // ggml's transport knows no other
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host.c_str(), nullptr, &hints, &found) == 0) {
        e.address = reinterpret_cast<sockaddr_in *>(found->ai_addr)->sin_addr.s_addr;
        freeaddrinfo(found);
    }
    e.port = htons(static_cast<uint16_t>(port));
}

template <class F> void for_each_socket(const servers::endpoint & e, F && f) {
    const int n = static_cast<int>(std::min<long>(sysconf(_SC_OPEN_MAX), 65536));
    for (int fd = 3; fd < n; fd++) {
        sockaddr_in peer = {};
        socklen_t   size = sizeof(peer);
        if (getpeername(fd, reinterpret_cast<sockaddr *>(&peer), &size) == 0 && peer.sin_family == AF_INET &&
            peer.sin_addr.s_addr == e.address && peer.sin_port == e.port) {
            f(fd);
        }
    }
}

void set(int fd, int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof(value));
}

// Some thirty seconds of silence, and the connection ends.
void watch_over(int fd) {
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#    ifdef TCP_KEEPIDLE
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
#    endif
#    ifdef TCP_KEEPINTVL
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
#    endif
#    ifdef TCP_USER_TIMEOUT
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
#    endif
}

bool has_ended(int fd) {
    char          byte;
    const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

#endif

bool is_gone(const servers::endpoint & e) {
    bool gone = false, found = false;
    for_each_socket(e, [&](int fd) {
        found = true;
        gone |= has_ended(fd);
    });
    return gone || !found;
}

servers::endpoint parse(const std::string & text) {
    const size_t colon = text.rfind(':');
    int          port  = 0;
    if (colon == std::string::npos || colon == 0 || std::sscanf(text.c_str() + colon + 1, "%5d", &port) != 1 || port < 1 || port > 65535) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "rpc is '" + text + "'; it can be host:port");
    }
    servers::endpoint e;
    e.name = text;
    resolve(e, text.substr(0, colon), port);
    if (e.address == 0) {
        throw failure(KOLLAMA_ERROR_REMOTE, text + ": the host is unknown, or has no IPv4 address");
    }
    return e;
}

// Of a call on another thread.
struct task {
    std::mutex              mutex;
    std::condition_variable ended;
    bool                    done = false;
    std::exception_ptr      error;
};

} // namespace

std::shared_ptr<servers> servers::connect(const std::vector<std::string> & endpoints) {
    ggml_backend_reg_t rpc = rpc_reg();
    if (!rpc) {
        throw failure(KOLLAMA_ERROR_LOAD, "no RPC library is loaded");
    }
    auto self = std::make_shared<servers>();
    for (const std::string & text : endpoints) {
        self->endpoints_.push_back(parse(text));
    }
    registry & all = known();
    {
        std::lock_guard<std::mutex> lock(all.mutex);
        all.all.push_back(self);
    }
    const auto add = reinterpret_cast<decltype(ggml_backend_rpc_add_server) *>(
        ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server"));
    for (const endpoint & e : self->endpoints_) {
        std::string name = e.name;
        {
            std::lock_guard<std::mutex> lock(all.mutex);
            if (const int n = all.n_lost[name]) {
                name += format(" (%d)", n); // what follows the port is not looked at
            }
        }
        self->call([self, add, name] {
            const guard        g;
            ggml_backend_reg_t reg = add(name.c_str());
            if (!reg) {
                throw failure(KOLLAMA_ERROR_REMOTE, name + " offers no device");
            }
            for (size_t i = 0; i < ggml_backend_reg_dev_count(reg); i++) {
                self->devices_.push_back(ggml_backend_reg_dev_get(reg, i));
            }
        });
    }
    return self;
}

void servers::call(std::function<void()> f, const std::function<bool()> & meanwhile) {
    if (lost_) {
        throw failure(KOLLAMA_ERROR_REMOTE, reason());
    }
    auto t = std::make_shared<task>();
    std::thread([t, f = std::move(f)]() mutable {
        std::exception_ptr error;
        try {
            const guard g;
            f();
        } catch (const engine_failure & e) { // such as a connection that is refused
            error = std::make_exception_ptr(failure(KOLLAMA_ERROR_REMOTE, e.what()));
        } catch (...) {
            error = std::current_exception();
        }
        f = nullptr; // what it owns goes before the caller does
        std::lock_guard<std::mutex> lock(t->mutex);
        t->error = error;
        t->done  = true;
        t->ended.notify_all();
    }).detach();

    std::unique_lock<std::mutex> lock(t->mutex);
    auto                         wanted = std::chrono::steady_clock::now();
    while (!t->ended.wait_for(lock, SLICE, [&] { return t->done; })) {
        if (lost_ && !t->ended.wait_for(lock, GRACE, [&] { return t->done; })) {
            throw failure(KOLLAMA_ERROR_REMOTE, reason());
        }
        if (meanwhile) {
            lock.unlock();
            const bool goes_on = meanwhile();
            lock.lock();
            const auto now = std::chrono::steady_clock::now();
            if (goes_on) {
                wanted = now;
            } else if (now - wanted > STOPPED) {
                throw failure(KOLLAMA_ERROR_ABORTED, "the call was stopped, and the server does not answer");
            }
        }
    }
    if (t->error) {
        std::rethrow_exception(t->error);
    }
}

void servers::add(const std::shared_ptr<engine> & engine) {
    std::lock_guard<std::mutex> lock(mutex_);
    engines_.push_back(engine);
}

bool servers::uses(const std::string & name) const {
    return std::any_of(endpoints_.begin(), endpoints_.end(), [&](const endpoint & e) { return e.name == name; });
}

std::string servers::reason() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return reason_;
}

void servers::keep_alive() const {
    for (const endpoint & e : endpoints_) {
        for_each_socket(e, watch_over);
    }
}

void servers::lose(const std::string & reason) {
    std::vector<std::weak_ptr<engine>> engines;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        if (lost_) {
            return;
        }
        reason_ = reason;
        lost_   = true;
        engines.swap(engines_);
    }
    for (const auto & weak : engines) {
        if (const auto engine = weak.lock()) {
            engine->lose_servers(reason);
        }
    }
}

// ggml's thread for a connection does not say which one: those are lost whose connections have ended.
void servers::on_failed_assertion(const char *) {
    if (crew::employer() || !rpc_reg() || !in_library_of(rpc_reg())) {
        return;
    }
    std::vector<std::shared_ptr<servers>> live;
    std::set<std::string>                 gone;
    registry &                            all = known();
    {
        std::lock_guard<std::mutex> lock(all.mutex);
        for (const auto & weak : all.all) {
            if (auto one = weak.lock(); one && !one->lost_) {
                live.push_back(std::move(one));
            }
        }
        all.all.assign(live.begin(), live.end());
        for (const auto & one : live) {
            for (const endpoint & e : one->endpoints_) {
                if (is_gone(e)) {
                    gone.insert(e.name);
                }
            }
        }
        if (gone.empty()) { // it is there, and talks nonsense
            for (const auto & one : live) {
                for (const endpoint & e : one->endpoints_) {
                    gone.insert(e.name);
                }
            }
        }
        for (const std::string & name : gone) {
            ++all.n_lost[name];
        }
    }
    for (const auto & one : live) {
        for (const endpoint & e : one->endpoints_) {
            if (gone.count(e.name)) {
                one->lose("the RPC server at " + e.name + " is gone: close the model, and load it again once the server is back");
            }
        }
    }
    live.clear();
    crew::park();
}

} // namespace kollama

using namespace kollama;

bool kollama_rpc_in_use(const char * endpoint) {
    registry &                  all = known();
    std::lock_guard<std::mutex> lock(all.mutex);
    for (const auto & weak : all.all) {
        if (const auto one = weak.lock(); one && !one->is_lost() && one->uses(endpoint)) {
            return true;
        }
    }
    return false;
}
