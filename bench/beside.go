// Estimates of gpustack's gguf-parser for one GPU: each line of the input is FILE LAYERS CONTEXT SLOTS BATCH K-TYPE V-TYPE FLASH.
package main

import (
	"bufio"
	"fmt"
	"os"

	parser "github.com/gpustack/gguf-parser-go"
)

var types = map[string]parser.GGMLType{
	"f16": parser.GGMLTypeF16, "q8_0": parser.GGMLTypeQ8_0, "q4_0": parser.GGMLTypeQ4_0,
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var path, keys, values, flash string
		var layers uint64
		var context, slots, batch int32
		if _, err := fmt.Sscan(lines.Text(), &path, &layers, &context, &slots, &batch, &keys, &values, &flash); err != nil {
			panic(err)
		}
		file, err := parser.ParseGGUFFile(path, parser.SkipLargeMetadata(), parser.UseMMap())
		if err != nil {
			fmt.Println("refused", err)
			continue
		}
		options := []parser.GGUFRunEstimateOption{
			parser.WithLLaMACppContextSize(context * slots), parser.WithParallelSize(slots),
			parser.WithLLaMACppLogicalBatchSize(batch), parser.WithLLaMACppPhysicalBatchSize(batch),
			parser.WithLLaMACppOffloadLayers(layers),
			parser.WithLLaMACppCacheKeyType(types[keys]), parser.WithLLaMACppCacheValueType(types[values]),
		}
		if flash == "on" {
			options = append(options, parser.WithFlashAttention())
		}
		item := file.EstimateLLaMACppRun(options...).SummarizeItem(true, 0, 0)
		fmt.Println(float64(item.VRAMs[0].NonUMA) / (1 << 20))
	}
}
