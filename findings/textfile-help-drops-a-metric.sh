#!/usr/bin/env bash
# prometheus-node-exporter 1.5.0 (Debian 12): where two .prom files of the textfile collector give one metric different
# HELP texts, the second file's samples are not served, and no metric says so: the scrape is a success, the file counts as
# read, node_textfile_scrape_error is 0. Only the exporter's log has a line. Two GPUs' files, written by two versions of one
# program, are such a pair: the second GPU vanishes from the graphs.
set -euo pipefail
temp=$(mktemp -d)
trap 'kill "$exporter" 2>/dev/null || true; rm -r "$temp"' EXIT
cd "$temp"

apt-get download -qq prometheus-node-exporter=1.5.0-1+b6 2>/dev/null
dpkg-deb --extract prometheus-node-exporter_*.deb .
mkdir textfiles
printf '# HELP %s\n# TYPE gpu_used_bytes gauge\ngpu_used_bytes{gpu="%s"} 1\n' 'gpu_used_bytes Memory in use.' 0 >textfiles/gpu0.prom
printf '# HELP %s\n# TYPE gpu_used_bytes gauge\ngpu_used_bytes{gpu="%s"} 1\n' 'gpu_used_bytes GPU memory in use.' 1 >textfiles/gpu1.prom
address=127.0.0.1:19788
usr/bin/prometheus-node-exporter --collector.disable-defaults --collector.textfile --collector.textfile.directory=textfiles \
  --web.listen-address="$address" 2>log &
exporter=$!
curl --silent --retry 20 --retry-delay 1 --retry-connrefused "http://$address/metrics" >metrics
grep -E '^(gpu_used_bytes|node_textfile_scrape_error|node_scrape_collector_success)' metrics >seen
grep -c ^node_textfile_mtime_seconds metrics >>seen
cat >expected <<'END'
gpu_used_bytes{gpu="0"} 1
node_scrape_collector_success{collector="textfile"} 1
node_textfile_scrape_error 0
2
END
cat seen
diff expected seen
grep -q 'has help' log
