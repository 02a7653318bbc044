// Estimates of node-llama-cpp for one GPU: each line of the input is FILE LAYERS CONTEXT SLOTS BATCH K-TYPE V-TYPE FLASH.
import {createInterface} from "node:readline";
import {GgmlType, GgufInsights, readGgufFileInfo} from "node-llama-cpp";

const types = {f16: GgmlType.F16, q8_0: GgmlType.Q8_0, q4_0: GgmlType.Q4_0};

for await (const line of createInterface({input: process.stdin})) {
    const [path, layers, context, slots, batch, keys, values, flash] = line.split(" ");
    try {
        const insights = await GgufInsights.from(await readGgufFileInfo(path, {logWarnings: false}));
        const gpuLayers = Math.min(Number(layers), insights.totalLayers);
        // Its newer estimates ask a GPU that is there; these are for any.
        const model = insights.estimateModelResourceRequirements({gpuLayers, useMmap: false, gpuSupportsMmap: false});
        const rest = insights.estimateContextResourceRequirements({
            contextSize: Number(context), modelGpuLayers: gpuLayers, batchSize: Number(batch), sequences: Number(slots),
            flashAttention: flash === "on", kvCacheKeyType: types[keys], kvCacheValueType: types[values]
        });
        console.log((model.gpuVram + rest.gpuVram) / 2 ** 20);
    } catch (error) {
        console.log("refused", String(error).split("\n")[0]);
    }
}
process.exit(0);
