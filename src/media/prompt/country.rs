//! The language that is most likely understood behind a country code (ITU-T E.164).

/// Country codes and languages of the built-in prompts; English where none of them is a national language. The longest
/// code that fits counts.
pub(super) const COUNTRIES: &[(&str, &str)] = &[
    // +1 is the United States, Canada and most of the Caribbean.
    ("1787", "es"), // Puerto Rico
    ("1939", "es"),
    ("1809", "es"), // Dominican Republic
    ("1829", "es"),
    ("1849", "es"),
    ("1418", "fr"), // Quebec
    ("1438", "fr"),
    ("1450", "fr"),
    ("1514", "fr"),
    ("1581", "fr"),
    ("1819", "fr"),
    ("1873", "fr"),
    ("1", "en"),
    ("20", "ar"),  // Egypt
    ("211", "en"), // South Sudan
    ("212", "ar"), // Morocco
    ("213", "ar"), // Algeria
    ("216", "ar"), // Tunisia
    ("218", "ar"), // Libya
    ("221", "fr"), // Senegal
    ("222", "ar"), // Mauritania
    ("223", "fr"), // Mali
    ("224", "fr"), // Guinea
    ("225", "fr"), // Ivory Coast
    ("226", "fr"), // Burkina Faso
    ("227", "fr"), // Niger
    ("228", "fr"), // Togo
    ("229", "fr"), // Benin
    ("235", "fr"), // Chad
    ("236", "fr"), // Central African Republic
    ("237", "fr"), // Cameroon
    ("238", "pt"), // Cape Verde
    ("239", "pt"), // Sao Tome and Principe
    ("240", "es"), // Equatorial Guinea
    ("241", "fr"), // Gabon
    ("242", "fr"), // Congo
    ("243", "fr"), // Congo, Democratic Republic
    ("244", "pt"), // Angola
    ("245", "pt"), // Guinea-Bissau
    ("249", "ar"), // Sudan
    ("253", "fr"), // Djibouti
    ("257", "fr"), // Burundi
    ("258", "pt"), // Mozambique
    ("261", "fr"), // Madagascar
    ("262", "fr"), // Reunion
    ("269", "fr"), // Comoros
    ("297", "nl"), // Aruba
    ("31", "nl"),
    ("32", "nl"), // Belgium
    ("33", "fr"),
    ("34", "es"),
    ("351", "pt"),
    ("352", "fr"), // Luxembourg
    ("375", "ru"), // Belarus
    ("377", "fr"), // Monaco
    ("378", "it"), // San Marino
    ("39", "it"),
    ("41", "de"),  // Switzerland
    ("423", "de"), // Liechtenstein
    ("43", "de"),
    ("49", "de"),
    ("502", "es"), // Guatemala
    ("503", "es"), // El Salvador
    ("504", "es"), // Honduras
    ("505", "es"), // Nicaragua
    ("506", "es"), // Costa Rica
    ("507", "es"), // Panama
    ("508", "fr"), // Saint Pierre and Miquelon
    ("509", "fr"), // Haiti
    ("51", "es"),  // Peru
    ("52", "es"),  // Mexico
    ("53", "es"),  // Cuba
    ("54", "es"),  // Argentina
    ("55", "pt"),  // Brazil
    ("56", "es"),  // Chile
    ("57", "es"),  // Colombia
    ("58", "es"),  // Venezuela
    ("590", "fr"), // Guadeloupe
    ("591", "es"), // Bolivia
    ("593", "es"), // Ecuador
    ("594", "fr"), // French Guiana
    ("595", "es"), // Paraguay
    ("596", "fr"), // Martinique
    ("597", "nl"), // Suriname
    ("598", "es"), // Uruguay
    ("599", "nl"), // Curacao
    ("62", "id"),
    ("670", "pt"), // East Timor
    ("687", "fr"), // New Caledonia
    ("689", "fr"), // French Polynesia
    ("7", "ru"),   // Russia and Kazakhstan
    ("90", "tr"),
    ("91", "hi"),
    ("961", "ar"), // Lebanon
    ("962", "ar"), // Jordan
    ("963", "ar"), // Syria
    ("964", "ar"), // Iraq
    ("965", "ar"), // Kuwait
    ("966", "ar"), // Saudi Arabia
    ("967", "ar"), // Yemen
    ("968", "ar"), // Oman
    ("970", "ar"), // Palestine
    ("971", "ar"), // United Arab Emirates
    ("973", "ar"), // Bahrain
    ("974", "ar"), // Qatar
    ("992", "ru"), // Tajikistan
    ("993", "ru"), // Turkmenistan
    ("996", "ru"), // Kyrgyzstan
    ("998", "ru"), // Uzbekistan
];

/// The built-in language for a number in E.164, with or without `+`; `en` where there is no better.
pub fn language_of(e164: &str) -> &'static str {
    let digits = e164.strip_prefix('+').unwrap_or(e164);
    COUNTRIES
        .iter()
        .filter(|(code, _)| digits.starts_with(code))
        .max_by_key(|(code, _)| code.len())
        .map_or("en", |(_, language)| language)
}
