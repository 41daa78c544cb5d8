//! Browser, system and device out of a user agent.
//!
//! The tables are in an order: the first entry of which a text occurs counts, so what a browser is stands before what
//! it claims to be as well. One automaton finds all texts of all tables in one pass. The tables are our own and not
//! those of the crate woothee, which had no release in years and knows neither tablets nor the browsers inside apps,
//! where most short links are opened.

use aho_corasick::AhoCorasick;

use super::programs::{Program, Programs};

/// What was told of an agent. Empty = not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agent {
    /// The browser, or the program's name.
    pub(super) browser: &'static str,
    pub(super) system: &'static str,
    /// One of `DEVICES`.
    pub(super) device: &'static str,
    pub(super) program: Option<Program>,
}

const DESKTOP: &str = "desktop";
const MOBILE: &str = "mobile";
const TABLET: &str = "tablet";
const BOT: &str = "bot";
const OTHER: &str = "other";

/// All kinds of devices.
#[cfg(test)]
pub(super) const DEVICES: [&str; 5] = [DESKTOP, MOBILE, TABLET, BOT, OTHER];

const WEBKIT: &str = "WebKit";
const SAFARI: &str = "Safari";
const ANDROID: &str = "Android";
const IOS: &str = "iOS";
const IPADOS: &str = "iPadOS";
const LINUX: &str = "Linux";

/// Browsers inside apps, then browsers; at most 64.
const BROWSERS: [(&[&str], &str); 46] = [
    (&["Instagram "], "Instagram"),
    (&["FBAN/Messenger", "MessengerLite", "FB_IAB/Orca", "FB_IAB/MESSENGER"], "Messenger"),
    (&["FBAN/", "FBAV/", "FB_IAB/", "MetaIAB Facebook"], "Facebook"),
    (&["musical_ly", "BytedanceWebview", "TikTok"], "TikTok"),
    (&["Snapchat/"], "Snapchat"),
    (&["Pinterest/", "[Pinterest"], "Pinterest"),
    (&["LinkedInApp"], "LinkedIn"),
    (&["Twitter for", "TwitterAndroid"], "Twitter"),
    (&["MicroMessenger/"], "WeChat"),
    (&[" Line/"], "LINE"),
    (&["KAKAOTALK"], "KakaoTalk"),
    (&["Reddit/"], "Reddit"),
    (&["GSA/"], "Google App"),
    (&["Electron/"], "Electron"),
    (&["Edg/", "EdgA/", "EdgiOS/", "Edge/"], "Edge"),
    (&["OPR/", "OPT/", "OPiOS/", "OPX/", "Opera"], "Opera"),
    (&["SamsungBrowser/"], "Samsung Internet"),
    (&["YaBrowser/"], "Yandex Browser"),
    (&["Vivaldi/"], "Vivaldi"),
    (&["DuckDuckGo/", " Ddg/"], "DuckDuckGo"),
    (&["Brave/"], "Brave"),
    (&["UCBrowser", "UBrowser/", "UCWEB"], "UC Browser"),
    (&["MiuiBrowser/"], "Mi Browser"),
    (&["HuaweiBrowser/"], "Huawei Browser"),
    (&["VivoBrowser/"], "Vivo Browser"),
    (&["HeyTapBrowser/"], "HeyTap Browser"),
    (&["QQBrowser/", " QQ/"], "QQ Browser"),
    (&["Whale/"], "Whale"),
    (&["Silk/"], "Silk"),
    (&["coc_coc_browser"], "Coc Coc"),
    (&["MetaSr", "SogouMobileBrowser"], "Sogou"),
    (&["OculusBrowser/"], "Oculus Browser"),
    (&["Maxthon"], "Maxthon"),
    (&["PaleMoon/"], "Pale Moon"),
    (&["SeaMonkey/"], "SeaMonkey"),
    (&["Firefox/", "FxiOS/", " Focus/", " Klar/"], "Firefox"),
    (&["; wv)"], "Android WebView"),
    (&["CriOS/", "Chrome/", "Chromium/"], "Chrome"),
    (&["MSIE ", "Trident/"], "Internet Explorer"),
    (&["Konqueror"], "Konqueror"),
    (&["Epiphany"], "Epiphany"),
    (&["BlackBerry", "BB10"], "BlackBerry"),
    (&["NokiaBrowser/", "Series60", "SymbianOS"], "Nokia Browser"),
    (&["Safari/"], SAFARI),
    (&["AppleWebKit/"], WEBKIT),
    (&["Profile/MIDP", "NetFront", "Nokia", "KAIOS/"], "Phone"),
];

/// What a system runs on, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Desktop,
    /// Unless it says that it is no phone.
    Phone,
    /// If it says that it is a phone, else on tablets.
    PhoneOrTablet,
    Tablet,
    Other,
}

/// Systems; at most 64.
const SYSTEMS: [(&[&str], &str, Class); 20] = [
    (&["Windows Phone", "IEMobile"], "Windows Phone", Class::Phone),
    (&["Xbox"], "Xbox", Class::Other),
    (&["PlayStation", "PLAYSTATION"], "PlayStation", Class::Other),
    (&["Nintendo"], "Nintendo", Class::Other),
    (&["KAIOS/"], "KaiOS", Class::Phone),
    (&["HarmonyOS", "OpenHarmony"], "HarmonyOS", Class::PhoneOrTablet),
    (&["Tizen"], "Tizen", Class::PhoneOrTablet),
    (&["Web0S", "webOS", "hpwOS"], "webOS", Class::Other),
    (&["Roku"], "Roku", Class::Other),
    (&["iPad"], IPADOS, Class::Tablet),
    (&["iPhone", "iPod"], IOS, Class::Phone),
    (&["CrOS "], "ChromeOS", Class::Desktop),
    (&["Android", "Adr "], ANDROID, Class::PhoneOrTablet),
    (&["Windows", "Win64", "Win32"], "Windows", Class::Desktop),
    (&["BlackBerry", "BB10"], "BlackBerry", Class::Phone),
    (&["Symbian", "Series60", "SymbOS"], "Symbian", Class::Phone),
    (&["Macintosh", "Mac OS X", "Mac_PowerPC"], "macOS", Class::Desktop),
    (&["FreeBSD", "OpenBSD", "NetBSD"], "BSD", Class::Desktop),
    (&["Linux", "X11", "Ubuntu"], LINUX, Class::Desktop),
    (&["J2ME", "MIDP"], "Java ME", Class::Phone),
];

/// What else tells the device.
const TRAITS: [&[&str]; 3] = [
    // A television, a watch, a headset.
    &[
        " TV",
        "-TV",
        "SmartTV",
        "GoogleTV",
        "AppleTV",
        "HbbTV",
        "BRAVIA",
        "; AFT",
        "CrKey",
        "Watch OS",
        "OculusBrowser/",
    ],
    &["Tablet", "PlayBook", "Kindle", "Nexus 7", "Nexus 9", "Nexus 10"],
    &["Mobile", "Mobi", "Opera Mini", "Opera Mobi"],
];
const SCREEN: u64 = 1;
const SLATE: u64 = 1 << 1;
const PHONE: u64 = 1 << 2;

/// Tells agents apart.
pub(super) struct Agents {
    programs: Programs,
    texts: AhoCorasick,
    /// Of each text its table and the bit of its entry there.
    places: Vec<(Table, u64)>,
}

#[derive(Clone, Copy)]
enum Table {
    Browsers,
    Systems,
    Traits,
}

impl Agents {
    /// Compiles the tables.
    ///
    /// # Panics
    /// Never: they are part of the program, and tests compile them.
    pub(super) fn new() -> Self {
        let browsers = BROWSERS.iter().enumerate().map(|(bit, (texts, _))| (Table::Browsers, bit, *texts));
        let systems = SYSTEMS.iter().enumerate().map(|(bit, (texts, ..))| (Table::Systems, bit, *texts));
        let traits = TRAITS.iter().enumerate().map(|(bit, texts)| (Table::Traits, bit, *texts));
        let mut places = Vec::new();
        let mut all = Vec::new();
        for (table, bit, texts) in browsers.chain(systems).chain(traits) {
            places.extend(texts.iter().map(|_| (table, 1 << bit)));
            all.extend_from_slice(texts);
        }
        let texts = AhoCorasick::new(all).expect("the tables fit an automaton");
        Self { programs: Programs::new(), texts, places }
    }

    /// What `text` tells; the same text always tells the same.
    pub(super) fn tell(&self, text: &[u8]) -> Agent {
        if let Some((program, name)) = self.programs.find(text) {
            return of_program(program, name);
        }
        let (mut browsers, mut systems, mut traits) = (0_u64, 0_u64, 0_u64);
        for found in self.texts.find_overlapping_iter(text) {
            match self.places[found.pattern()] {
                (Table::Browsers, bit) => browsers |= bit,
                (Table::Systems, bit) => systems |= bit,
                (Table::Traits, bit) => traits |= bit,
            }
        }
        let browser = BROWSERS.get(browsers.trailing_zeros() as usize).map_or("", |(_, name)| name);
        let (system, class) =
            SYSTEMS.get(systems.trailing_zeros() as usize).map_or(("", None), |(_, name, class)| (*name, Some(*class)));
        let like_a_browser = text.starts_with(b"Mozilla/") && !system.is_empty();
        if browser.is_empty() && !like_a_browser {
            return of_program(Program::Unnamed, "");
        }
        Agent { browser: inside_apps(browser, system), system, device: device(class, traits), program: None }
    }
}

const fn of_program(program: Program, name: &'static str) -> Agent {
    Agent { browser: name, system: "", device: BOT, program: Some(program) }
}

/// Systems' own views, which apps show pages in, tell themselves by what they leave out.
fn inside_apps(browser: &'static str, system: &'static str) -> &'static str {
    match (browser, system) {
        (WEBKIT, IOS | IPADOS) => "iOS WebView",
        (SAFARI, ANDROID) => "Android Browser",
        _ => browser,
    }
}

fn device(class: Option<Class>, traits: u64) -> &'static str {
    let has = |bit| traits & bit != 0;
    match class {
        _ if has(SCREEN) => OTHER,
        Some(Class::Other) => OTHER,
        Some(Class::Tablet) => TABLET,
        Some(Class::Phone) if has(SLATE) => TABLET,
        Some(Class::Phone) => MOBILE,
        Some(Class::PhoneOrTablet) if has(PHONE) && !has(SLATE) => MOBILE,
        Some(Class::PhoneOrTablet) => TABLET,
        // Windows says "Tablet PC" where it could be one, which nearly all can.
        Some(Class::Desktop) if has(PHONE) => MOBILE,
        Some(Class::Desktop) => DESKTOP,
        None if has(SLATE) => TABLET,
        None if has(PHONE) => MOBILE,
        None => OTHER,
    }
}

/// All that the tables say, to notice a change.
#[cfg(test)]
pub(super) fn tables() -> String {
    format!("{BROWSERS:?} {SYSTEMS:?} {TRAITS:?}")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn told(agents: &Agents, text: &str) -> [&'static str; 3] {
        let Agent { browser, system, device, program } = agents.tell(text.as_bytes());
        assert_eq!(program, None, "{text}");
        [browser, system, device]
    }

    #[test]
    fn the_tables_fit_their_bits() {
        const { assert!(BROWSERS.len() <= 64 && SYSTEMS.len() <= 64 && TRAITS.len() <= 64) };
        let known = BROWSERS.iter().map(|(_, name)| name).chain(SYSTEMS.iter().map(|(_, name, _)| name));
        assert!(known.chain(&DEVICES).all(|name| (2..=20).contains(&name.len()) && name.is_ascii()));
    }

    #[test]
    fn people_are_told_by_browser_system_and_device() {
        let agents = Agents::new();
        let lines = include_str!("agents.txt").lines().filter(|line| !line.starts_with('#'));
        let mut people = 0;
        for line in lines {
            let (expected, text) = line.split_once('\t').unwrap();
            assert_eq!(told(&agents, text).join(" | "), expected, "{text}");
            people += 1;
        }
        assert!(people >= 60);
    }

    #[test]
    fn who_does_not_say_what_it_is_is_a_program() {
        let agents = Agents::new();
        let long = "x".repeat(10_000);
        for text in ["", "-", "Mozilla/5.0", "Mozilla/4.0 (compatible;)", "acme", "Acme/1.0 (Windows NT 10.0)", &long] {
            assert_eq!(agents.tell(text.as_bytes()), of_program(Program::Unnamed, ""), "{text}");
        }
        assert_eq!(agents.tell(b"\xff\xfe\0"), of_program(Program::Unnamed, ""));
    }

    #[test]
    fn a_program_has_its_name_and_no_system() {
        let text = "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) Chrome/W.X.Y.Z Mobile Safari/537.36 (compatible; bingbot/2.0)";
        let told = Agents::new().tell(text.as_bytes());
        assert_eq!(told, Agent { browser: "bingbot", system: "", device: BOT, program: Some(Program::Crawler) });
    }

    proptest! {
        #[test]
        fn any_bytes_tell_something_bounded(texts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..100),
                prop::sample::select(BROWSERS.map(|(texts, _)| texts[0].as_bytes().to_vec()).to_vec()),
                prop::sample::select(SYSTEMS.map(|(texts, ..)| texts[0].as_bytes().to_vec()).to_vec()),
            ], 0..8,
        )) {
            static AGENTS: LazyLock<Agents> = LazyLock::new(Agents::new);
            let told = AGENTS.tell(&texts.concat());
            prop_assert!(DEVICES.contains(&told.device));
            prop_assert_eq!(told.program.is_some(), told.device == BOT);
        }
    }
}
