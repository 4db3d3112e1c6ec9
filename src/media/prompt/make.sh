#!/bin/sh
# Makes the built-in prompts: two small Ogg Opus files for each language, spoken by espeak-ng.
#
#   apt-get install espeak-ng sox opus-tools && src/media/prompt/make.sh
#
# espeak-ng (GPL-3.0-or-later, https://github.com/espeak-ng/espeak-ng) is only used here, to make the files: nothing
# of it is in the program, and what a program says is not bound by its licence. The texts are our own. The files
# that are committed were made with espeak-ng 1.51, sox 14.4.2 and opus-tools 0.2.
#
# Each is mono, 8 kHz, about -20 dBFS (RMS; the encoder takes 2 dB of it away), with 50 ms of silence at both ends. A text says nothing about the key
# but "one": with another recording.consent_key the operator's own prompt is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# level FILE: its RMS in dBFS.
level() {
    sox "$1" -n stats 2>&1 | awk '/^RMS lev dB/ { print $4 }'
}

# say LANGUAGE VOICE announce|ask TEXT [WORDS A MINUTE]
say() {
    raw="$work/raw.wav" cut="$work/cut.wav" loud="$work/loud.wav"
    espeak-ng -v "$2" -s "${5:-150}" -w "$raw" "$4"
    sox "$raw" -r 8000 -c 1 -b 16 "$cut" silence 1 0.02 1% reverse silence 1 0.02 1% reverse
    gain=$(level "$cut" | awk '{ printf "%.2f", -18 - $1 }')
    sox "$cut" "$loud" gain -l "$gain" fade 0.01 0 0.01 pad 0.05 0.05
    opusenc --quiet --speech --vbr --bitrate 7 --framesize 60 --comp 10 --padding 0 --serial 1 \
        --discard-comments --discard-pictures "$loud" "$here/$1-$3.opus"
}

say en en-us announce "This call is recorded."
say en en-us ask "This call will be recorded if you agree. To agree, press one."
say es es-419 announce "Esta llamada está siendo grabada."
say es es-419 ask "Esta llamada será grabada si usted está de acuerdo. Para aceptar, presione uno."
say pt pt-br announce "Esta chamada será gravada."
say pt pt-br ask "Esta chamada será gravada se você concordar. Para concordar, pressione um."
say fr fr announce "Cet appel est enregistré."
say fr fr ask "Cet appel sera enregistré si vous êtes d'accord. Pour accepter, appuyez sur la touche un."
say de de announce "Dieses Gespräch wird aufgezeichnet."
say de de ask "Dieses Gespräch wird aufgezeichnet, wenn Sie zustimmen. Zum Zustimmen drücken Sie bitte die Eins."
say it it announce "Questa chiamata viene registrata."
say it it ask "Questa chiamata verrà registrata se lei è d'accordo. Per accettare, prema il tasto uno."
say nl nl announce "Dit gesprek wordt opgenomen."
say nl nl ask "Dit gesprek wordt opgenomen als u daarmee instemt. Toets één om in te stemmen."
say id id announce "Panggilan ini direkam."
say id id ask "Panggilan ini akan direkam jika Anda setuju. Untuk menyetujui, tekan satu."
say hi hi announce "यह कॉल रिकॉर्ड की जा रही है।"
say hi hi ask "आपकी सहमति होने पर यह कॉल रिकॉर्ड की जाएगी। सहमति देने के लिए एक दबाएँ।"
# With its vowels: espeak-ng does not guess them.
say ar ar announce "تُسَجَّلُ هٰذِهِ الْمُكَالَمَة."
say ar ar ask "سَتُسَجَّلُ هٰذِهِ الْمُكَالَمَةُ إِذَا وَافَقْتُمْ. لِلْمُوَافَقَةِ، يُرْجَى الضَّغْطُ عَلَى الرَّقْمِ وَاحِد." 175
say tr tr announce "Bu görüşme kaydedilmektedir."
say tr tr ask "Kabul ederseniz bu görüşme kaydedilecektir. Kabul etmek için lütfen bire basın."
say ru ru announce "Этот разговор записывается."
say ru ru ask "Этот разговор будет записан, если вы согласны. Чтобы согласиться, нажмите один."
