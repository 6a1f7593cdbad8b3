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
python "$here/train_clip.py" --data "$data/train" --init "$out/text" --out "$out/image" --minutes 60 --lr 2e-3
python "$here/train_clip.py" --data "$data/train" --init "$out/image" --out "$out/clip" --minutes 10 --lr 5e-4 --joint
python "$here/train_dino.py" --data "$data/train" --out "$out/dino" --minutes 20
python "$here/export.py" --clip "$out/clip" --dino "$out/dino"
python "$here/evaluate.py" --data "$data/test" --json "$out/metrics.json"
