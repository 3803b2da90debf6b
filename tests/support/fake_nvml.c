/* A fake of NVIDIA's management library (NVML) with the functions that the project calls.

   It answers each call from the file $FAKE_NVML; see fake_nvml.h. */

#include "fake_nvml.h"

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int result = read_state();
    if (result)
        return result;
    if (!*state.driver_version)
        return DRIVER_NOT_LOADED;
    users++;
    return SUCCESS;
}

int nvmlShutdown(void)
{
    if (!users)
        return UNINITIALIZED;
    users--;
    return SUCCESS;
}

const char *nvmlErrorString(int result)
{
    switch (result) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned size)
{
    int result = start_call();
    return result ? result : copy(state.driver_version, version, size);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int result = start_call();
    if (!result)
        *count = state.devices;
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, uintptr_t *handle)
{
    int result = start_call();
    if (result)
        return result;
    return index < state.devices ? return_handle(SLOTS * index, handle) : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, uintptr_t *handle)
{
    int result = start_call();
    if (result)
        return result;
    for (unsigned slot = 0; slot < DEVICES * SLOTS; slot++)
        if (*uuid && !strcmp(state.slots[slot].uuid, uuid))
            return return_handle(slot, handle);
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(uintptr_t handle, char *uuid, unsigned size)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : copy(device->uuid, uuid, size);
}

int nvmlDeviceGetName(uintptr_t handle, char *name, unsigned size)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : copy(device->name, name, size);
}

int nvmlDeviceGetMemoryInfo(uintptr_t handle, struct memory *memory)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    double total = device->numbers[MEMORY_TOTAL], used = device->numbers[MEMORY_USED];
    if (isnan(total) || isnan(used))
        return NOT_SUPPORTED;
    used += device->numbers[MEMORY_RESERVED];
    *memory = (struct memory){total, total - used, used};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(uintptr_t handle, struct memory_v2 *memory)
{
    struct memory simple;
    struct device *device;
    int result = nvmlDeviceGetMemoryInfo(handle, &simple);
    if (result)
        return result;
    find(handle, &device);
    unsigned long long reserved = device->numbers[MEMORY_RESERVED];
    *memory = (struct memory_v2){
        memory->version, simple.total, reserved, simple.free, simple.used - reserved,
    };
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(uintptr_t handle, unsigned *count, struct process *rows)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : list(&device->compute, count, rows);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(uintptr_t handle, unsigned *count,
                                             struct process *rows)
{
    struct device *device;
    int result = find(handle, &device);
    return result ? result : list(&device->graphics, count, rows);
}

int nvmlDeviceGetPowerUsage(uintptr_t handle, unsigned *milliwatts)
{
    return rounded(handle, POWER, 1e-3, milliwatts);
}

int nvmlDeviceGetTotalEnergyConsumption(uintptr_t handle, unsigned long long *millijoules)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    double joules = device->numbers[ENERGY], watts = device->numbers[POWER];
    if (isnan(joules) || isnan(watts))
        return NOT_SUPPORTED;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = now.tv_sec + now.tv_nsec * 1e-9 - state.saved_at_seconds;
    *millijoules = 1000 * (joules + watts * seconds);
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(uintptr_t handle, unsigned long long *reasons)
{
    double stored;
    int result = number(handle, THROTTLE_REASONS, &stored);
    if (!result)
        *reasons = stored;
    return result;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(uintptr_t handle, unsigned long long *reasons)
{
    return nvmlDeviceGetCurrentClocksEventReasons(handle, reasons);
}

int nvmlDeviceGetMigMode(uintptr_t handle, unsigned *current, unsigned *pending)
{
    int result = rounded(handle, MIG, 1, current);
    if (!result)
        *pending = *current;
    return result;
}

int nvmlDeviceGetMaxMigDeviceCount(uintptr_t handle, unsigned *count)
{
    struct device *device;
    int result = find(handle, &device);
    if (!result)
        *count = device->numbers[MIG] == 1 ? INSTANCES : 0;
    return result;
}

int nvmlDeviceGetMigDeviceHandleByIndex(uintptr_t handle, unsigned index, uintptr_t *instance)
{
    struct device *device;
    int result = find(handle, &device);
    if (result)
        return result;
    if (device->numbers[MIG] != 1)
        return NOT_SUPPORTED;
    if (index >= INSTANCES)
        return INVALID_ARGUMENT;
    *instance = handle + 1 + index;
    return *device[1 + index].uuid ? SUCCESS : NOT_FOUND;
}

