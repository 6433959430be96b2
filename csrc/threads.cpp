// How many threads to compute with when the caller does not say: a machine's logical CPUs are the
// wrong answer under hyper-threading, in a container with a quota, and in a pinned process.

#include "internal.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#ifdef __linux__
#    include <sched.h>
#endif
#ifdef __APPLE__
#    include <sys/sysctl.h>
#endif

namespace {

int logical_cpus() {
    return std::max(1u, std::thread::hardware_concurrency());
}

#ifdef __linux__

std::string first_line(const std::string & path) {
    std::ifstream file(path);
    std::string   line;
    std::getline(file, line);
    return line;
}

// Distinct (package, core) pairs among the CPUs this process may run on.
int allowed_cores() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        return logical_cpus();
    }
    std::set<std::pair<std::string, std::string>> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) {
            continue;
        }
        const std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
        std::string       core     = first_line(topology + "core_id");
        if (core.empty()) {
            core = "cpu" + std::to_string(cpu); // no topology to be read: every CPU counts
        }
        cores.emplace(first_line(topology + "physical_package_id"), core);
    }
    return std::max<int>(1, cores.size());
}

// CPUs' worth of time that the cgroup grants, rounded up as a part of a CPU is better than none;
// a large number where there is no limit. Version 2: "max 100000" or "200000 100000".
int quota_v2(const std::string & folder) {
    std::istringstream line(first_line(folder + "/cpu.max"));
    double             quota = 0, period = 0;
    if (line >> quota >> period && quota > 0 && period > 0) {
        return std::max(1, static_cast<int>(std::ceil(quota / period)));
    }
    return INT32_MAX;
}

int quota_v1(const std::string & folder) {
    const double quota  = std::atof(first_line(folder + "/cpu.cfs_quota_us").c_str());
    const double period = std::atof(first_line(folder + "/cpu.cfs_period_us").c_str());
    return quota > 0 && period > 0 ? std::max(1, static_cast<int>(std::ceil(quota / period))) : INT32_MAX;
}

// The tightest limit on the way from this process's group up to the root of the hierarchy.
int cgroup_quota() {
    int           least = INT32_MAX;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) {
            continue;
        }
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool        v2          = controllers.empty();
        if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) {
            continue;
        }
        for (std::string path = line.substr(second + 1);; path = path.substr(0, path.rfind('/'))) {
            const std::string tail = path == "/" ? "" : path;
            least = std::min({ least, v2 ? quota_v2("/sys/fs/cgroup" + tail) : quota_v1("/sys/fs/cgroup/cpu" + tail) });
            if (tail.empty()) {
                break;
            }
        }
    }
    return least;
}

#endif

} // namespace

int32_t kollama_default_threads(void) {
#if defined(__linux__)
    return std::min(allowed_cores(), cgroup_quota());
#elif defined(__APPLE__)
    // Performance cores alone: ggml splits work evenly, so the slowest core sets the pace.
    int    cores = 0;
    size_t size  = sizeof(cores);
    if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, nullptr, 0) == 0 && cores > 0) {
        return cores;
    }
    size = sizeof(cores);
    return sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0) == 0 && cores > 0 ? cores : logical_cpus();
#else
    const int cpus = logical_cpus();
    return cpus > 4 ? cpus / 2 : cpus; // two logical CPUs to a core is the rule on desktop Windows
#endif
}
