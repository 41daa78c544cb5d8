// Draws the diagrams of a page in the colours of its theme, and again when the reader chooses another one.
// Pages without diagrams load nothing. Without mermaid beside the book their text stays.
// The page of all pages is there for paper: it is drawn light, and printed when it is drawn.
'use strict';

(() => {
    const blocks = [...document.querySelectorAll('pre.mermaid')];
    if (blocks.length === 0) {
        return;
    }
    const root = document.documentElement;
    const texts = blocks.map((block) => block.textContent);
    const forPaper = location.pathname.endsWith('/print.html');
    const isDark = () => ['coal', 'navy', 'ayu'].some((name) => root.classList.contains(name));
    const theme = () => !forPaper && isDark() ? 'dark' : 'light';

    const font = 'system-ui, sans-serif';
    const colours = {
        light: {
            darkMode: false, background: '#ffffff', primaryColor: '#e9f0fa', primaryTextColor: '#1d1f21',
            primaryBorderColor: '#6f86a8', lineColor: '#4d5766', textColor: '#1d1f21', secondaryColor: '#f1f2f0',
            tertiaryColor: '#f7f8f9', edgeLabelBackground: '#ffffff', noteBkgColor: '#fdf3d3',
            noteTextColor: '#1d1f21', noteBorderColor: '#cdb96f',
        },
        dark: {
            darkMode: true, background: '#161923', primaryColor: '#27324d', primaryTextColor: '#e6e7e8',
            primaryBorderColor: '#8296bd', lineColor: '#a9b1c0', textColor: '#e6e7e8', secondaryColor: '#20283a',
            tertiaryColor: '#1c2232', edgeLabelBackground: '#161923', noteBkgColor: '#3b3521',
            noteTextColor: '#f1e8cd', noteBorderColor: '#8d7d42',
        },
    };

    const draw = async () => {
        const wanted = theme();
        if (root.dataset.diagrams === wanted) {
            return;
        }
        blocks.forEach((block, place) => {
            block.removeAttribute('data-processed');
            block.textContent = texts[place];
        });
        mermaid.initialize({
            startOnLoad: false,
            securityLevel: 'strict',
            theme: 'base',
            themeVariables: colours[wanted],
            fontFamily: font,
            sequence: {
                width: 165, actorMargin: 25, wrap: true, mirrorActors: false,
                messageFontFamily: font, noteFontFamily: font, actorFontFamily: font,
            },
            er: { nodeSpacing: 40, rankSpacing: 70, fontSize: 13 },
        });
        await mermaid.run({ nodes: blocks });
        // They shrink to the page's width, but not so far that nobody could read them: then they scroll.
        for (const drawing of document.querySelectorAll('pre.mermaid svg')) {
            drawing.style.minWidth = `${parseFloat(drawing.style.maxWidth) * 0.75}px`;
        }
        root.dataset.diagrams = wanted;
    };
    // One after another: a theme may be chosen while the last one is drawn.
    let drawn = Promise.resolve();
    const drawNext = () => {
        drawn = drawn.then(draw).catch((error) => console.error('diagrams: ' + error));
    };

    const script = document.createElement('script');
    script.src = path_to_root + 'assets/mermaid.min.js';
    const loaded = new Promise((settle) => {
        script.addEventListener('load', () => {
            drawNext();
            new MutationObserver(drawNext).observe(root, { attributes: true, attributeFilter: ['class'] });
            settle();
        });
        script.addEventListener('error', settle);
    });
    // mdBook has that page print itself as soon as it is loaded, which is before anything is drawn.
    const print = window.print.bind(window);
    window.print = () => loaded.then(() => drawn).then(print);
    document.head.append(script);
})();
