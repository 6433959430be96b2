// What ggml names of VK_EXT_layer_settings, for Vulkan headers of before 1.3.272 (Debian 12 has 1.3.239):
// it hands the loader a setting of the validation layer, which concerns nobody where that is not used.

#pragma once

#include <vulkan/vulkan_core.h>

#ifndef VK_EXT_layer_settings

#    include <vector>

namespace vk {

enum class LayerSettingTypeEXT { eBool32 = 0 };

struct LayerSettingEXT { // VkLayerSettingEXT
    const char *        pLayerName;
    const char *        pSettingName;
    LayerSettingTypeEXT type;
    uint32_t            valueCount;
    const void *        pValues;
};

struct LayerSettingsCreateInfoEXT { // VkLayerSettingsCreateInfoEXT
    explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> & settings) :
        settingCount(static_cast<uint32_t>(settings.size())), pSettings(settings.data()) {}

    VkStructureType         sType = static_cast<VkStructureType>(1000496000);
    const void *            pNext = nullptr;
    uint32_t                settingCount;
    const LayerSettingEXT * pSettings;
};

} // namespace vk

#endif
