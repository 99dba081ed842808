#!/bin/sh
# The same calls with curl alone. The address of the server and a folder for pictures may stand behind the name:
#   sh examples/curl.sh http://127.0.0.1:8888 pictures
set -eu
server=${1:-${FOOOCUSAPI_SERVER:-http://127.0.0.1:8888}}
folder=${2:-pictures}
picture=$(dirname "$0")/../docs/demo.png
controls="{\"overwrite_step\": ${FOOOCUSAPI_EXAMPLE_STEPS:--1}}"  # -1: as many as the performance mode says
mkdir -p "$folder"
json='Content-Type: application/json'

echo "A picture from a prompt, as the answer itself:"
curl -sSf "$server/v1/generation/text-to-image?accept=image/png" -H "$json" -o "$folder/curl-apple.png" \
  -d "{\"prompt\": \"a red apple, flat icon\", \"aspect_ratios_selection\": \"512*512\", \"advanced_params\": $controls}"

echo "A variation of a picture, as a form with a file:"
curl -sSf "$server/v1/generation/image-upscale-vary?accept=image/png" -o "$folder/curl-varied.png" \
  -F input_image=@"$picture" -F 'uov_method=Vary (Subtle)' -F 'prompt=a red heart, 3d render' \
  -F "advanced_params=$controls"

echo "A picture that grows to the left, as JSON with the picture in base64:"
printf '{"input_image": "%s", "outpaint_selections": ["Left"], "prompt": "a red heart", "advanced_params": %s}' \
  "$(base64 < "$picture" | tr -d '\n')" "$controls" |
  curl -sSf "$server/v2/generation/image-inpaint-outpaint?accept=image/png" -H "$json" -o "$folder/curl-wider.png" -d @-

echo "What it has made so far, and what it knows:"
curl -sSf "$server/v1/generation/job-history"; echo
curl -sSf "$server/v1/engines/all-models"; echo
