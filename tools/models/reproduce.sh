#!/bin/sh
# Renders the world, trains both models, puts them into the package and measures them: reproduce.sh DATA OUT
set -eu
data=$1
out=$2
here=$(dirname "$0")
world="$here/../world/generate.py"
if [ ! -d "$data/train" ]; then
    python "$world" --split train --seeds 0-399 --views 4 --out "$data/train"
    python "$world" --split val --seeds 0-7 --out "$data/val"
    python "$world" --split test --seeds 0-11 --out "$data/test"
fi
python "$here/train_clip.py" --data "$data/train" --out "$out/text" --text-steps 500 --minutes 0
python "$here/pretrain.py" --data "$data/train" --init "$out/text" --out "$out/pretrained" --minutes 15
python "$here/train_clip.py" --data "$data/train" --init "$out/pretrained" --out "$out/clip" --minutes 15 --lr 5e-4 \
    --fit-head
python "$here/train_dino.py" --data "$data/train" --out "$out/dino" --minutes 20
python "$here/export.py" --clip "$out/clip" --dino "$out/dino"
python "$here/evaluate.py" --data "$data/test" --json "$out/metrics.json"
